-- Purpose: what was told to whom watches, open ones first.
-- Parameters: rows=30
-- Grain: one row per alert, from its first word to its last.
select
    alert_key,
    title,
    opened_at,
    closed_at,
    coalesce(closed_at, now()) - opened_at as lasted,
    times_seen,
    sent_at,
    recovery_sent_at,
    failed_sends,
    last_error
from ops.alert
order by closed_at desc nulls first, opened_at desc
limit $rows
