-- Purpose: every day's prices, volumes and hours can belong together.
-- Severity: hard
-- Owner: gold_daily
-- Subject: gold.product_day
-- Gate: yes
-- A failing row: is a day that no list of bars can give.
-- What to do: rewrite it with Dag gold_daily; where it comes again, look at the day's bars.
-- Parameters: rows (identifier), since (timestamptz).
-- Grain: one row per impossible day.
select
    venue,
    product_id,
    day,
    open,
    high,
    low,
    close,
    vwap,
    volume,
    trade_count,
    volatility,
    hours,
    complete_hours
from $rows
where
    day >= $since
    and (
        high < low
        or open not between low and high
        or close not between low and high
        or least(open, high, low, close, vwap) <= 0
        or least(volume, notional, buy_volume, sell_volume, trade_count, gap_minutes, volatility) < 0
        or volume <> buy_volume + sell_volume
        or hours not between 1 and 24
        or complete_hours not between 0 and hours
        or gap_minutes > 1440
        or day <> date_trunc('day', day)
    )
order by day
