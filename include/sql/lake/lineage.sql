-- Purpose: a trade and the bytes it came from.
-- Parameters: product=BTC-USD, trade=0
-- Grain: one row per trade; trade 0 means the newest.
select
    t.trade_id,
    t.price,
    t.size,
    t.taker_side,
    r.topic,
    r.partition,
    r."offset",
    decode(r.value) as received
from silver.trades as t
inner join bronze.trades_raw as r
    on t.topic = r.topic and t.partition = r.partition and t."offset" = r."offset"
where
    t.product_id = $product
    and (t.trade_id = $trade or ($trade = 0 and t.trade_id = (
        select max(newest.trade_id) from silver.trades as newest
        where newest.product_id = $product
    )))
