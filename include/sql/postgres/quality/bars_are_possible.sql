-- Purpose: every bar's prices, volumes and counts can belong together.
-- Severity: hard
-- Owner: gold_bars
-- Subject: gold.bars
-- Gate: yes
-- A failing row: is a bar that no list of trades can give: high below low, open, close or vwap outside of them, a
-- price of zero or less, volumes that do not add up, prices without trades, or a start beside its interval's grid.
-- What to do: rewrite its hour with Dag gold_bars; where it comes again, look at silver.trades of the hour
-- (`marketflow verify --hours 24`).
-- Parameters: rows (identifier), since (timestamptz).
-- Grain: one row per impossible bar.
select
    venue,
    product_id,
    interval,
    open_ts,
    open,
    high,
    low,
    close,
    vwap,
    volume,
    buy_volume,
    sell_volume,
    trade_count
from $rows
where
    open_ts >= $since
    and (
        high < low
        or open not between low and high
        or close not between low and high
        -- the quotient of two sums that were rounded to 18 places
        or vwap not between low * 0.999999 and high * 1.000001
        or least(open, high, low, close, vwap) <= 0
        or least(volume, notional, buy_volume, sell_volume, trade_count) < 0
        or volume <> buy_volume + sell_volume
        or (trade_count = 0) <> (volume = 0)
        or num_nulls(open, high, low, close, vwap) <> case when trade_count = 0 then 5 else 0 end
        or num_nulls(first_trade_id, last_trade_id) <> case when trade_count = 0 then 2 else 0 end
        or first_trade_id > last_trade_id
        or interval not in ('1m', '5m', '15m', '1h', '1d')
        or date_bin(
            case interval
                when '1m' then interval '1 minute'
                when '5m' then interval '5 minutes'
                when '15m' then interval '15 minutes'
                when '1h' then interval '1 hour'
                else interval '1 day'
            end,
            open_ts,
            timestamptz '1970-01-01 00:00:00+00'
        ) <> open_ts
    )
order by open_ts
