-- Purpose: no number is NaN or infinite.
-- Severity: hard
-- Owner: the table's
-- Subject: every gold table
-- Gate: yes
-- A failing row: holds NaN or an infinity, which a comparison lets pass as a large number and which makes every mean
-- and sum over it one too.
-- What to do: rewrite its hour with the owner's Dag; where it comes again, the kernel divides by zero in the columns
-- that not_finite names: where there is no value it owes a null.
-- Parameters: rows (identifier), since (timestamptz), hour_column (identifier), key and doubles (lists of identifiers).
-- Grain: one row per row with such a number.
select
    $key,
    $hour_column as of,
    (
        select string_agg(each.key, ', ' order by each.key)
        from (select $doubles) as measured
        cross join jsonb_each_text(to_jsonb(measured)) as each
        where each.value in ('NaN', 'Infinity', '-Infinity')
    ) as not_finite
from $rows
where
    -- PostgreSQL sorts NaN above Infinity; both functions pass over nulls
    (greatest($doubles) >= 'Infinity' or least($doubles) <= '-Infinity')
    and $hour_column >= $since
order by $hour_column
