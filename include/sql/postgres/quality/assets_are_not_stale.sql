-- Purpose: an asset that is polled by its own name has a price of the last ten minutes.
-- Severity: soft
-- Owner: market-data
-- Subject: live.asset_observation
-- Gate: no
-- A failing row: is an asset of a source that is asked for named assets, with a price that the source has not renewed:
-- it is left out of movers. CoinGecko and CoinCap are asked for the largest ones, which come and go: the check
-- listed_assets_are_priced is of the former; the latter says no time of an asset's own.
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
    where
        last_updated >= $since
        and source not in ('coingecko', 'coincap')
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
