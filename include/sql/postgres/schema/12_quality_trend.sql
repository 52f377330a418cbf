-- Purpose: whether a check gets better or worse: its runs of each day, how many it passed, how many rows broke it.
-- Parameters: none.
-- Grain: one row per check and day (UTC).
create or replace view ops.quality_trend as
select
    check_name,
    (checked_at at time zone 'utc')::date as day,
    count(*) as runs,
    count(*) filter (where outcome = 'passed') as passed,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome = 'unjudged') as unjudged,
    -- null where it was never judged that day
    round(
        100.0 * count(*) filter (where outcome = 'passed')
        / nullif(count(*) filter (where outcome <> 'unjudged'), 0),
        2
    ) as pass_rate_pct,
    max(failing_rows) as worst_failing_rows,
    (array_agg(failing_rows order by checked_at desc))[1] as last_failing_rows
from ops.quality_result
group by check_name, (checked_at at time zone 'utc')::date;
