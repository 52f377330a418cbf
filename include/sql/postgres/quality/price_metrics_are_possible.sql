-- Purpose: every price is above zero and every measure is a number that prices can give.
-- Severity: hard
-- Owner: gold_price_metrics
-- Subject: gold.price_metrics
-- Gate: yes
-- A failing row: is an observation with a price or mean of zero or less, a fall of more than 100 %, or a negative
-- volatility.
-- What to do: rewrite its hour with Dag gold_price_metrics; a bad price of the source should be in silver.rejected:
-- `marketflow quarantine show`.
-- Parameters: rows (identifier), since (timestamptz).
-- Grain: one row per impossible observation.
select
    source,
    asset_id,
    vs_currency,
    ts,
    price,
    change_1min,
    change_5min,
    sma_5m,
    ema_3m,
    volatility_5m,
    realized_volatility_5m,
    observations_5m
from $rows
where
    ts >= $since
    and (
        price <= 0
        or least(sma_5m, ema_3m) <= 0
        or least(change_1min, change_5min) <= -100
        or least(volatility_5m, realized_volatility_5m) < 0
        or observations_5m < 1
        or (volatility_5m is null) <> (observations_5m < 2)
    )
order by ts
