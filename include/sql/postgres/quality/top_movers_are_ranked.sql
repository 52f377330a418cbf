-- Purpose: a ranking's places are 1, 2, … in the order of change_5min, and no asset is in it twice.
-- Severity: hard
-- Owner: gold_price_metrics
-- Subject: gold.top_movers
-- Gate: yes
-- A failing row: is a place that the ranking cannot have: a gap in the places, a smaller mover before a larger, an
-- asset that is there twice, or a price of zero or less.
-- What to do: rewrite its hour with Dag gold_price_metrics.
-- Parameters: rows (identifier), since (timestamptz).
-- Grain: one row per wrong place.
with placed as (
    select
        source,
        vs_currency,
        snapshot_ts,
        direction,
        rank,
        asset_id,
        price,
        change_5min,
        row_number() over ranking as place,
        lag(change_5min) over ranking as change_before,
        count(*) over (partition by source, vs_currency, snapshot_ts, asset_id) as times
    from $rows
    where snapshot_ts >= $since
    window ranking as (partition by source, vs_currency, snapshot_ts, direction order by rank)
)

select *
from placed
where
    direction not in ('gainer', 'loser')
    or rank <> place
    or times > 1
    or price <= 0
    or case direction when 'gainer' then change_5min > change_before else change_5min < change_before end
order by snapshot_ts
