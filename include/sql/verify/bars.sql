-- Purpose: what gold.bars must hold of the trades in the table `trades`, by its own definition.
-- Parameters: $complete_through, µs; bars that end by then, with a trade after them, are complete.
-- Grain: one row per venue, product, interval and opening time, from a product's first trade to its last.
with intervals (name, step) as (
    values ('1m', 60000000), ('5m', 300000000), ('15m', 900000000), ('1h', 3600000000), ('1d', 86400000000)
),

neighbours as (
    select
        venue,
        product_id,
        trade_id,
        event_ts,
        lead(trade_id) over following as next_id,
        lead(event_ts) over following as next_ts
    from trades
    window following as (partition by venue, product_id order by trade_id)
),

-- every interval that some moment between a hole's two neighbours lies in
touched as (
    select distinct
        venue,
        product_id,
        intervals.name as "interval",
        unnest(
            range(
                least(event_ts, next_ts) // step * step, greatest(event_ts, next_ts) // step * step + step, step
            )
        ) as open_ts
    from neighbours
    cross join intervals
    where next_id > trade_id + 1
),

grid as (
    select
        venue,
        product_id,
        intervals.name as "interval",
        step,
        last_ts,
        unnest(range(first_ts // step * step, last_ts // step * step + step, step)) as open_ts
    from (
        select
            venue,
            product_id,
            min(event_ts) as first_ts,
            max(event_ts) as last_ts
        from trades
        group by all
    )
    cross join intervals
),

totals as (
    select
        venue,
        product_id,
        intervals.name as "interval",
        event_ts // step * step as open_ts,
        arg_min(price, trade_id) as "open",
        max(price) as high,
        min(price) as low,
        arg_max(price, trade_id) as "close",
        sum(size) as volume,
        sum(notional) as notional,
        count(*) as trade_count,
        min(trade_id) as first_trade_id,
        max(trade_id) as last_trade_id,
        sum(size) filter (where taker_side = 'buy') as buy_volume,
        sum(size) filter (where taker_side = 'sell') as sell_volume
    from trades
    cross join intervals
    group by venue, product_id, intervals.name, event_ts // step * step
)

select
    grid.venue,
    grid.product_id,
    grid."interval",
    grid.open_ts,
    totals."open",
    totals.high,
    totals.low,
    totals."close",
    coalesce(totals.volume, 0)::decimal(38, 18) as volume,
    coalesce(totals.notional, 0)::decimal(38, 18) as notional,
    case when totals.volume > 0 then exact_over(totals.notional, totals.volume) end as vwap,
    coalesce(totals.trade_count, 0) as trade_count,
    coalesce(totals.buy_volume, 0)::decimal(38, 18) as buy_volume,
    coalesce(totals.sell_volume, 0)::decimal(38, 18) as sell_volume,
    -- ids that are not told one by one show no hole, so none can be ruled out
    touched.open_ts is not null or starts_with(grid.venue, 'ccxt_') as has_gap,
    grid.open_ts + grid.step <= least($complete_through, grid.last_ts) as is_complete,
    totals.first_trade_id,
    totals.last_trade_id,
    grid.open_ts // 3600000000 * 3600000000 as hour_us
from grid
left join totals using (venue, product_id, "interval", open_ts)
left join touched using (venue, product_id, "interval", open_ts)
