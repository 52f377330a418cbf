-- Purpose: the newest metrics of one asset, newest first.
-- Parameters: asset=bitcoin, rows=20
-- Grain: one row per observation.
select
    ts,
    symbol,
    price,
    change_1min,
    change_5min,
    sma_5m,
    ema_3m,
    volatility_5m,
    observations_5m
from mart.price_metrics
where asset_id = $asset
order by ts desc
limit $rows
