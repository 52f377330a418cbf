-- Purpose: the measures under the names that comparable pipelines use: sma over 5 minutes, ema with a half-life of
-- 61.8 s, volatility over 5 minutes (see mart.price_metrics for their definitions).
-- Parameters: none.
-- Grain: one row per source, id, vs_currency, timestamp.
create or replace view mart.enriched_prices as
select
    metrics.ts as timestamp,
    metrics.asset_id as id,
    metrics.symbol,
    metrics.price,
    metrics.change_1min,
    metrics.change_5min,
    metrics.sma_5m as sma,
    metrics.ema_3m as ema,
    metrics.volatility_5m as volatility,
    metrics.source,
    metrics.vs_currency
from mart.price_metrics as metrics;
