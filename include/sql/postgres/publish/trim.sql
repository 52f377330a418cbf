-- Purpose: keep the recent days only; the lake keeps all.
-- Parameters: table and hour_column (identifiers), oldest (timestamptz): the first hour to keep.
-- Grain: deletes every older row.
delete from $table
where $hour_column < $oldest;
