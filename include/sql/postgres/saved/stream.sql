-- Purpose: the newest batches of each streaming query.
-- Parameters: rows=40
-- Grain: one row per batch event.
select
    query,
    batch_id,
    event,
    at,
    input_rows,
    processed_rows_per_s,
    duration_ms,
    error
from ops.stream_progress
order by at desc
limit $rows
