-- Purpose: no column is null that the contract wants filled.
-- Severity: hard
-- Owner: the table's
-- Subject: every gold table
-- Gate: yes
-- A failing row: holds a null that a reader would take for a number that is not known.
-- What to do: rewrite its hour with the owner's Dag; where it comes again, the kernel leaves the column out.
-- Parameters: rows (identifier), since (timestamptz), hour_column (identifier), key and required (lists of
-- identifiers).
-- Grain: one row per row with a null.
select
    $key,
    $hour_column as of,
    num_nulls($required) as nulls
from $rows
where
    num_nulls($required) > 0
    and $hour_column >= $since
order by $hour_column
