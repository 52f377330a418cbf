-- Purpose: where every message and item of the last day went, per silver table.
-- Parameters: none.
-- Grain: one row per silver table.
select
    table_name,
    sum(messages) as messages,
    sum(ignored) as ignored,
    sum(parsed) as parsed,
    sum(unparseable) as unparseable,
    sum(items) as items,
    sum(accepted) as accepted,
    sum(duplicate) as duplicates,
    sum(rejected) as rejected
from ops.silver_accounting
where committed_at > now() - interval '1 day'
group by table_name
order by table_name
