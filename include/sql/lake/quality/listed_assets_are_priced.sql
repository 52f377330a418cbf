-- Purpose: an asset that CoinGecko lists has a price of the last ten minutes.
-- Severity: soft
-- Owner: silver
-- Subject: silver.asset_prices
-- Gate: no
-- A failing row: is an asset of CoinGecko's newest pages whose own `last_updated` is ten minutes behind the newest: it
-- is left out of movers. One that has left the pages, as the list is by market cap, is nobody's worry.
-- What to do: CoinGecko has stopped pricing it (delisted, halted); nothing to do unless there are many: `marketflow
-- sources`.
-- Parameters: since (timestamptz).
-- Grain: one row per stale asset of a page.
with polled as (
    select max(received_at) as newest_at
    from bronze.prices_raw
    where
        ingested_at >= $since
        and venue = 'coingecko'
        and channel = 'markets'
        and http_status = 200
),

-- a page that is not asked for any more says nothing of today
pages as (
    select
        request,
        arg_max(try(decode(value)), received_at) as page
    from bronze.prices_raw
    where
        ingested_at >= $since
        and received_at > (select newest_at from polled) - interval '10 minutes'
        and venue = 'coingecko'
        and channel = 'markets'
        and http_status = 200
        and json_valid(try(decode(value)))
    group by request
),

assets as (
    select
        request,
        unnest(from_json(page, '[{"id": "VARCHAR", "last_updated": "VARCHAR"}]')) as asset
    from pages
),

priced as (
    select
        assets.request,
        assets.asset['id'] as asset_id,
        try_cast(assets.asset['last_updated'] as timestamptz) as last_updated
    from assets
)

select
    request,
    asset_id,
    last_updated
from priced
where last_updated < (select max(last_updated) from priced) - interval '10 minutes'
order by last_updated
