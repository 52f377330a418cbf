-- Purpose: how each check stood when it was last looked at.
-- Parameters: none.
-- Grain: one row per check.
create or replace view ops.quality_latest as
select distinct on (check_name)
    check_name,
    stage,
    subject,
    severity,
    owner,
    outcome,
    failing_rows,
    detail,
    sample,
    checked_at,
    run_id
from ops.quality_result
order by check_name asc, checked_at desc;
