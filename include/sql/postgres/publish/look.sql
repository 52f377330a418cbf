-- Purpose: remember since when a published table is as the lake's newest snapshot says, whether or not there was work.
-- Parameters: table_name, looked_at (timestamptz): when that snapshot was looked up.
-- Grain: one row; none before the first publication. looked_at never moves back.
update ops.publish_audit
set looked_at = greatest(looked_at, $looked_at)
where table_name = $table_name;
