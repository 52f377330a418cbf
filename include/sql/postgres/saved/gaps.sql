-- Purpose: the gap ledger, newest first.
-- Parameters: rows=50
-- Grain: one row per hole in trade_id.
select
    venue,
    product_id,
    first_missing_id,
    last_missing_id,
    last_missing_id - first_missing_id + 1 as missing,
    cause,
    status,
    attempts,
    detected_at,
    healed_at,
    healed_at - detected_at as latency,
    detail
from ops.trade_gap
order by detected_at desc
limit $rows
