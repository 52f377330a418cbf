-- Purpose: every message and every item of a silver commit went somewhere.
-- Severity: hard
-- Owner: silver
-- Subject: ops.silver_accounting
-- Gate: no
-- A failing row: is a commit whose books do not balance: something was dropped or counted twice.
-- What to do: Dag silver with the hour of the commit restates it from bronze; `marketflow verify` says which rows are
-- missing.
-- Parameters: since (timestamptz).
-- Grain: one row per commit that does not balance.
select
    table_name,
    snapshot_id,
    committed_at,
    messages,
    ignored,
    parsed,
    unparseable,
    items,
    accepted,
    duplicate,
    rejected
from ops.silver_accounting
where
    committed_at >= $since
    and (
        ignored + parsed + unparseable <> messages
        or accepted + duplicate + rejected <> items
    )
order by committed_at
