-- Purpose: how far each table is complete, and how long ago that was.
-- Parameters: none.
-- Grain: one row per table.
select
    table_name,
    complete_through,
    newest_event_at,
    now() - complete_through as age
from ops.layer_freshness
order by table_name
