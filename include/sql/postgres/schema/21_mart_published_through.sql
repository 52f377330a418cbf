-- Purpose: the border between gold and live in the mart: end of the last hour that publication covers.
-- Parameters: qualified, a gold table's name, e.g. 'gold.price_metrics'.
-- Grain: one time; -infinity before the first publication.
create or replace function mart.published_through(qualified text)
returns timestamptz
language sql
stable
as $$
select coalesce(
    (select audit.published_through from ops.publish_audit as audit where audit.table_name = qualified),
    '-infinity'::timestamptz
)
$$;
