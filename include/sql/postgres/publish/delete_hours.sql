-- Purpose: make room for whole hours of a published table; their rows are copied in next, in the same transaction.
-- Parameters: table and hour_column (identifiers), hours (array of timestamptz, each the start of an hour).
-- Grain: deletes every row of these hours.
delete from $table as published
using unnest($hours::timestamptz[]) as replaced (hour)
where
    published.$hour_column >= replaced.hour
    and published.$hour_column < replaced.hour + interval '1 hour';
