-- Purpose: a key is there once.
-- Severity: hard
-- Owner: the table's
-- Subject: every gold table
-- Gate: yes
-- A failing row: is a key with more than one row: sums over the table would count it twice.
-- What to do: rewrite its hour with the owner's Dag; where it comes again, two files hold the hour: see snapshots of
-- the table.
-- Parameters: rows (identifier), since (timestamptz), hour_column (identifier), key (list of identifiers).
-- Grain: one row per key that is there more than once.
select
    $key,
    count(*) as copies,
    min($hour_column) as of
from $rows
where $hour_column >= $since
group by $key
having count(*) > 1
order by of
