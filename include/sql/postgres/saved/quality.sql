-- Purpose: the checks of data quality by day: runs, share that passed, rows that broke them.
-- Parameters: days=14
-- Grain: one row per check and day.
select
    check_name,
    day,
    runs,
    pass_rate_pct,
    worst_failing_rows,
    unjudged
from ops.quality_trend
where day > now() - make_interval(days => $days)
order by day desc, pass_rate_pct asc nulls first, check_name asc
