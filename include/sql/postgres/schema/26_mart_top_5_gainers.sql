-- Purpose: the five assets that rose the most in five minutes, as of each market's latest snapshot. A market silent for
-- a day while others went on is left out. stale_since is null while the ranking is younger than five minutes; after
-- that (a stop, a silent source) the time from which it is of other minutes than the last five.
-- Parameters: none.
-- Grain: one row per source, vs_currency, rank.
create or replace view mart.top_5_gainers as
with latest as (
    select
        recent.source,
        recent.vs_currency,
        max(recent.snapshot_ts) as snapshot_ts
    from mart.top_movers as recent
    where
        recent.snapshot_ts > greatest(
            (select max(gold.snapshot_ts) from gold.top_movers as gold),
            (select max(live.snapshot_ts) from live.top_movers as live)
        ) - interval '1 day'
    group by recent.source, recent.vs_currency
)

select
    movers.source,
    movers.vs_currency,
    movers.snapshot_ts,
    movers.rank,
    movers.asset_id,
    movers.symbol,
    movers.name,
    movers.price,
    movers.change_1min,
    movers.change_5min,
    movers.volatility_5m,
    movers.observed_at,
    case
        when movers.snapshot_ts < now() - interval '5 minutes' then movers.snapshot_ts + interval '5 minutes'
    end as stale_since
from mart.top_movers as movers
inner join latest
    on
        movers.source = latest.source
        and movers.vs_currency = latest.vs_currency
        and movers.snapshot_ts = latest.snapshot_ts
where movers.direction = 'gainer' and movers.rank <= 5;
