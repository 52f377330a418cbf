-- Purpose: a hole in trade ids is healed or given up within an hour.
-- Severity: soft
-- Owner: heal_gaps
-- Subject: ops.trade_gap
-- Gate: no
-- A failing row: is a hole that nobody has filled or given up: bars across it say has_gap.
-- What to do: `marketflow gaps`, then `marketflow heal`; see Dag heal_gaps.
-- Parameters: since (timestamptz).
-- Grain: one row per open hole of more than an hour.
select
    venue,
    product_id,
    first_missing_id,
    last_missing_id,
    cause,
    attempts,
    detected_at,
    detail
from ops.trade_gap
where
    status = 'open'
    and detected_at < now() - interval '1 hour'
    -- since only narrows what has an end, and an open hole has none
    and $since <= now()
order by detected_at
