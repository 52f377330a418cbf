-- Purpose: what silver took has prices, sizes and times that can be.
-- Severity: hard
-- Owner: silver
-- Subject: silver.trades
-- Gate: no
-- A failing row: is a trade, quote or price with a price or size of zero or less, no side, a time more than a minute
-- after it arrived, or a null: silver's parser should have refused it by name.
-- What to do: correct the parser of the venue; the rows are rebuilt from bronze (docs/operations.md).
-- Parameters: since (timestamptz).
-- Grain: one row per impossible row of silver.trades, silver.quotes or silver.asset_prices.
select
    'silver.trades' as table_name,
    venue,
    product_id as what,
    event_ts,
    trade_id::varchar as id,
    price
from silver.trades
where
    event_ts >= $since
    and (
        coalesce(price <= 0 or size <= 0 or notional < 0 or taker_side not in ('buy', 'sell'), true)
        or event_ts > received_at + interval 60 seconds
    )
union all by name
select
    'silver.quotes' as table_name,
    venue,
    product_id as what,
    event_ts,
    sequence::varchar as id,
    best_bid as price
from silver.quotes
where
    event_ts >= $since
    and coalesce(best_bid <= 0 or best_ask <= 0 or best_bid_size < 0 or best_ask_size < 0, best_bid is null)
union all by name
select
    'silver.asset_prices' as table_name,
    source as venue,
    asset_id as what,
    last_updated as event_ts,
    poll_id as id,
    price
from silver.asset_prices
where
    last_updated >= $since
    and (coalesce(price <= 0, true) or last_updated > polled_at + interval 60 seconds)
