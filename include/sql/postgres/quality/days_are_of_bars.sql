-- Purpose: a day's row says what the day's bar says.
-- Severity: soft
-- Owner: gold_daily
-- Subject: gold.product_day
-- Gate: no
-- A failing row: is a day that was written before late trades changed its bar, or that somebody changed.
-- What to do: the next run of Dag gold_daily, at midnight UTC, writes changed days; at once: trigger it with the day.
-- Parameters: since (timestamptz).
-- Grain: one row per day that differs from its bar.
select
    days.venue,
    days.product_id,
    days.day,
    days.trade_count,
    bars.trade_count as trade_count_of_bar,
    days.close,
    bars.close as close_of_bar
from gold.product_day as days
inner join gold.bars as bars
    on
        days.venue = bars.venue
        and days.product_id = bars.product_id
        and days.day = bars.open_ts
where
    bars.interval = '1d'
    and days.day >= $since::timestamptz - interval '1 day'
    and (days.trade_count, days.volume, days.high, days.low, days.close)
    is distinct from (bars.trade_count, bars.volume, bars.high, bars.low, bars.close)
order by days.day
