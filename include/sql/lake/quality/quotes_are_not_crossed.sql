-- Purpose: the best bid is below the best ask.
-- Severity: soft
-- Owner: silver
-- Subject: silver.quotes
-- Gate: no
-- A failing row: is a quote whose bid is at or above its ask. Venues tell such books for a moment while they match; a
-- spread taken from one is negative.
-- What to do: few of them are the venue's: features say what they are. Many of one product mean that the feed mixes two
-- books: `marketflow sources`, then the parser of the venue.
-- Parameters: since (timestamptz).
-- Grain: one row per crossed quote.
select
    venue,
    product_id,
    sequence,
    event_ts,
    best_bid,
    best_ask
from silver.quotes
where
    event_ts >= $since
    and best_bid >= best_ask
order by event_ts
