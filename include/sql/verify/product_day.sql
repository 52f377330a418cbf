-- Purpose: what gold.product_day must hold of the bars in the table `day_bars`, by its own definition.
-- Parameters: $complete_through, µs; days that ended by then have a row.
-- Grain: one row per venue, product and day that has a day bar.
with moves as (
    select
        venue,
        product_id,
        open_ts // 86400000000 * 86400000000 as day,
        ln("close"::double)
        - lag(ln("close"::double)) over (
            partition by venue, product_id, open_ts // 86400000000 order by open_ts
        ) as move
    from day_bars
    where "interval" = '5m' and trade_count > 0
),

volatilities as (
    select
        venue,
        product_id,
        day,
        sqrt(sum(move * move)) as volatility
    from moves
    group by all
),

counts as (
    select
        venue,
        product_id,
        open_ts // 86400000000 * 86400000000 as day,
        count(*) filter (where "interval" = '1m' and has_gap) as gap_minutes,
        count(*) filter (where "interval" = '1h') as "hours",
        count(*) filter (where "interval" = '1h' and is_complete) as complete_hours
    from day_bars
    group by all
)

select
    days.venue,
    days.product_id,
    days.open_ts as day,
    days."open",
    days.high,
    days.low,
    days."close",
    days.volume,
    days.notional,
    days.vwap,
    days.trade_count,
    days.buy_volume,
    days.sell_volume,
    volatilities.volatility,
    counts.gap_minutes,
    counts."hours",
    counts.complete_hours,
    days.is_complete,
    days.open_ts as hour_us
from day_bars as days
inner join counts on days.venue = counts.venue and days.product_id = counts.product_id and days.open_ts = counts.day
left join volatilities
    on days.venue = volatilities.venue and days.product_id = volatilities.product_id and days.open_ts = volatilities.day
where days."interval" = '1d' and days.open_ts + 86400000000 <= $complete_through
