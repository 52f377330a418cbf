-- Purpose: what was refused, by table and reason, with the newest example.
-- Parameters: none.
-- Grain: one row per table and reason.
select
    source_table,
    reason,
    count(*) as items,
    max(rejected_at) as newest,
    max_by(detail, rejected_at) as newest_detail
from silver.rejected
group by source_table, reason
order by items desc
