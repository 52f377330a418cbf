-- Purpose: remember the gold snapshot up to which the published table is true, in the transaction that made it so.
-- Parameters: table_name, last_snapshot_id, published_through (timestamptz or null), hours, row_count.
-- Grain: one row per published table. published_through never moves back.
insert into ops.publish_audit as audit (
    table_name, last_snapshot_id, published_through, published_at, hours, row_count
)
values (
    $table_name, $last_snapshot_id, $published_through, now(), $hours, $row_count
)
on conflict (table_name) do update set
    last_snapshot_id = excluded.last_snapshot_id,
    published_through = greatest(audit.published_through, excluded.published_through),
    published_at = excluded.published_at,
    hours = excluded.hours,
    row_count = excluded.row_count;
