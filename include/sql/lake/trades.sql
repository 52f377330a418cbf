-- Purpose: the newest trades of one product.
-- Parameters: product=BTC-USD, rows=20
-- Grain: one row per trade.
select
    trade_id,
    event_ts,
    taker_side,
    price,
    size,
    notional,
    received_at,
    origin
from silver.trades
where product_id = $product
order by trade_id desc
limit $rows
