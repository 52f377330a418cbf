-- Purpose: remember that the published table was as the lake's newest snapshot says, whether or not there was work.
-- Parameters: table_name.
-- Grain: one row; none before the first publication.
update ops.publish_audit
set looked_at = now()
where table_name = $table_name;
