-- Purpose: start a published table anew, where what changed in the lake can no longer be told. Not a truncate: readers
-- go on seeing the old rows until the transaction commits.
-- Parameters: table (identifier).
-- Grain: deletes every row.
delete from $table;
