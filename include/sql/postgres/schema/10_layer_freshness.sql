-- Purpose: how fresh each table is; what every freshness sensor reads.
-- Parameters: none.
-- Grain: one row per table.
create or replace view ops.layer_freshness as
select
    split_part(mark.table_name, '.', 1) as layer,
    mark.table_name,
    mark.complete_through,
    mark.newest_event_at,
    mark.snapshot_id,
    mark.updated_at
from ops.layer_mark as mark;
