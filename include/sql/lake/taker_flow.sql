-- Purpose: what takers bought and sold, hour by hour.
-- Parameters: product=BTC-USD, rows=24
-- Grain: one row per hour.
select
    date_trunc('hour', event_ts) as hour,
    count(*) as trades,
    sum(case when taker_side = 'buy' then size else 0 end) as bought,
    sum(case when taker_side = 'sell' then size else 0 end) as sold,
    sum(notional) as notional
from silver.trades
where product_id = $product
group by date_trunc('hour', event_ts)
order by hour desc
limit $rows
