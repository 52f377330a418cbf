-- Purpose: an asset that a source still lists has a price of the last ten minutes.
-- Severity: soft
-- Owner: market-data
-- Subject: live.asset_observation
-- Gate: no
-- A failing row: is an asset that polls go on to bring, with a price that the source has not renewed: it is left out
-- of movers.
-- What to do: the source has stopped pricing it (delisted, halted); nothing to do unless there are many: `marketflow
-- sources`.
-- Parameters: since (timestamptz).
-- Grain: one row per stale asset of a source that is polled.
with assets as (
    select
        source,
        asset_id,
        vs_currency,
        max(last_updated) as last_updated
    from live.asset_observation
    where last_updated >= $since
    group by source, asset_id, vs_currency
),

sources as (
    select
        source,
        max(last_updated) as last_updated
    from assets
    group by source
)

select
    assets.source,
    assets.asset_id,
    assets.vs_currency,
    assets.last_updated,
    sources.last_updated as newest_of_source
from assets
inner join sources on assets.source = sources.source
-- a source that is silent altogether is another alert, and not that of each of its assets
where assets.last_updated < sources.last_updated - interval '10 minutes'
order by assets.last_updated
