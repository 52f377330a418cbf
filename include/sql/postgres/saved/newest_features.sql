-- Purpose: features of each product's newest trade, as the stream knows them now: the main ones of over a hundred.
-- Parameters: none
-- Grain: one row per venue and product.
select
    venue,
    product_id,
    event_ts,
    price,
    taker_side,
    history,
    return_10,
    volatility_50,
    price_vs_ma_50,
    volume_ratio_50,
    order_flow_imbalance_100,
    spread_bps,
    quote_age_ms,
    gaps_in_window_500,
    written_at - received_at as latency
from mart.feature_latest
order by venue, product_id
