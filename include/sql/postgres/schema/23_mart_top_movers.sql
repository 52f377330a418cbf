-- Purpose: gainers and losers as of each poll: gold up to the last published hour, the stream's own after it. A
-- snapshot comes whole from one of them, since late prices may give the two other rankings; where one lacks it, it
-- is the other's.
-- Parameters: none.
-- Grain: one row per source, vs_currency, snapshot_ts, direction, rank.
create or replace view mart.top_movers as
select
    gold.source,
    gold.vs_currency,
    gold.snapshot_ts,
    gold.poll_id,
    gold.direction,
    gold.rank,
    gold.asset_id,
    gold.symbol,
    gold.name,
    gold.price,
    gold.change_1min,
    gold.change_5min,
    gold.volatility_5m,
    gold.market_cap_rank,
    gold.observed_at,
    'gold' as layer
from gold.top_movers as gold
where gold.snapshot_ts < mart.published_through('gold.top_movers')
union all
select
    live.source,
    live.vs_currency,
    live.snapshot_ts,
    live.poll_id,
    live.direction,
    live.rank,
    live.asset_id,
    live.symbol,
    live.name,
    live.price,
    live.change_1min,
    live.change_5min,
    live.volatility_5m,
    live.market_cap_rank,
    live.observed_at,
    'live' as layer
from live.top_movers as live
where live.snapshot_ts >= mart.published_through('gold.top_movers')
union all
select
    live.source,
    live.vs_currency,
    live.snapshot_ts,
    live.poll_id,
    live.direction,
    live.rank,
    live.asset_id,
    live.symbol,
    live.name,
    live.price,
    live.change_1min,
    live.change_5min,
    live.volatility_5m,
    live.market_cap_rank,
    live.observed_at,
    'live' as layer
from live.top_movers as live
where
    live.snapshot_ts < mart.published_through('gold.top_movers')
    and not exists (
        select 1
        from gold.top_movers as gold
        where
            gold.source = live.source
            and gold.vs_currency = live.vs_currency
            and gold.snapshot_ts = live.snapshot_ts
    )
union all
select
    gold.source,
    gold.vs_currency,
    gold.snapshot_ts,
    gold.poll_id,
    gold.direction,
    gold.rank,
    gold.asset_id,
    gold.symbol,
    gold.name,
    gold.price,
    gold.change_1min,
    gold.change_5min,
    gold.volatility_5m,
    gold.market_cap_rank,
    gold.observed_at,
    'gold' as layer
from gold.top_movers as gold
where
    gold.snapshot_ts >= mart.published_through('gold.top_movers')
    and not exists (
        select 1
        from live.top_movers as live
        where
            live.source = gold.source
            and live.vs_currency = gold.vs_currency
            and live.snapshot_ts = gold.snapshot_ts
    );
