-- Purpose: bars of one product, newest first.
-- Parameters: product=BTC-USD, bar=1m, rows=30
-- Grain: one row per bar.
select
    open_ts,
    open,
    high,
    low,
    close,
    volume,
    vwap,
    trade_count,
    has_gap,
    is_complete
from mart.bars
where product_id = $product and interval = $bar
order by open_ts desc
limit $rows
