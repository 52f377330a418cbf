-- Purpose: a venue's own candles beside our bars of the same intervals, and whether they agree.
-- Parameters: product=BTC-USD, bar=1m, rows=30
-- Grain: one row per candle, newest first. Without a gap a complete bar must be the same; vwap and flow have no candle.
select
    c.venue,
    c.open_ts,
    case
        when b.open_ts is null then 'no bar'
        when b.has_gap then 'bar has a gap'
        when not b.is_complete then 'bar is open'
        when
            c."open" = b."open"
            and c.high = b.high
            and c.low = b.low
            and c."close" = b."close"
            and c.volume = b.volume
            and (c.trade_count is null or c.trade_count = b.trade_count)
            then 'same'
        else 'differs'
    end as verdict,
    c."open",
    b."open" as bar_open,
    c.high,
    b.high as bar_high,
    c.low,
    b.low as bar_low,
    c."close",
    b."close" as bar_close,
    c.volume,
    b.volume as bar_volume
from silver.candles as c
left join gold.bars as b
    on
        c.venue = b.venue
        and c.product_id = b.product_id
        and c."interval" = b."interval"
        and c.open_ts = b.open_ts
where c.product_id = $product and c."interval" = $bar
order by c.open_ts desc, c.venue asc
limit $rows
