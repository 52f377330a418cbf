-- Purpose: an hour's bar is the sum of its minutes.
-- Severity: hard
-- Owner: gold_bars
-- Subject: gold.bars
-- Gate: yes
-- A failing row: is an hourly bar whose trades, volume, high or low are not those of its one-minute bars.
-- What to do: rewrite its hour with Dag gold_bars: all intervals of an hour are written at once, so one of them was
-- changed by another hand.
-- Parameters: rows (identifier), since (timestamptz).
-- Grain: one row per product and hour that does not add up.
with minutes as (
    select
        venue,
        product_id,
        date_trunc('hour', open_ts) as hour,
        sum(trade_count) as trade_count,
        sum(volume) as volume,
        sum(notional) as notional,
        max(high) as high,
        min(low) as low
    from $rows
    where interval = '1m' and open_ts >= $since
    group by venue, product_id, date_trunc('hour', open_ts)
)

select
    hours.venue,
    hours.product_id,
    hours.open_ts,
    hours.trade_count,
    minutes.trade_count as trade_count_of_minutes,
    hours.volume,
    minutes.volume as volume_of_minutes,
    hours.high,
    minutes.high as high_of_minutes,
    hours.low,
    minutes.low as low_of_minutes
from $rows as hours
left join minutes
    on
        hours.venue = minutes.venue
        and hours.product_id = minutes.product_id
        and hours.open_ts = minutes.hour
where
    hours.interval = '1h'
    -- minutes before are not looked at, so an hour that began before is not either
    and hours.open_ts >= $since
    and (hours.trade_count, hours.volume, hours.notional, hours.high, hours.low)
    is distinct from (minutes.trade_count, minutes.volume, minutes.notional, minutes.high, minutes.low)
order by hours.open_ts
