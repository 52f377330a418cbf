-- Purpose: who moved the most as of each poll, from the tables `observations` and `metrics` (of price_metrics.sql).
-- Parameters: $per_direction, places per direction.
-- Grain: one row per place: source, vs_currency, snapshot_ts, direction, rank.
with polls as (
    select
        source,
        vs_currency,
        poll_started_at as snapshot_ts,
        max(poll_id) as poll_id
    from observations
    group by source, vs_currency, poll_started_at
),

-- the newest observation known as of each poll of the asset; a late page may bring an older one
known as (
    select
        source,
        vs_currency,
        asset_id,
        poll_started_at,
        max(max(last_updated)) over (
            partition by source, vs_currency, asset_id order by poll_started_at
        ) as observed_at
    from observations
    group by source, vs_currency, asset_id, poll_started_at
),

listed as (
    select
        polls.*,
        assets.asset_id
    from polls
    inner join (select distinct source, vs_currency, asset_id from observations) as assets
        using (source, vs_currency)
),

latest as (
    select
        listed.*,
        known.observed_at
    from listed
    asof join known
        on
            listed.source = known.source
            and listed.vs_currency = known.vs_currency
            and listed.asset_id = known.asset_id
            and listed.snapshot_ts >= known.poll_started_at
),

candidates as (
    select
        latest.*,
        m.symbol,
        m.name,
        m.price,
        m.change_1min,
        m.change_5min,
        m.volatility_5m,
        m.market_cap_rank
    from latest
    inner join metrics as m
        on
            latest.source = m.source
            and latest.vs_currency = m.vs_currency
            and latest.asset_id = m.asset_id
            and latest.observed_at = m.ts
    where latest.snapshot_ts - latest.observed_at < 300000000 and m.change_5min is not null
),

highest as (
    select
        *,
        row_number() over (
            partition by source, vs_currency, snapshot_ts
            order by change_5min desc, market_cap_rank asc nulls last, asset_id asc
        ) as place
    from candidates
),

lowest as (
    select
        *,
        row_number() over (
            partition by source, vs_currency, snapshot_ts
            order by change_5min asc, market_cap_rank asc nulls last, asset_id asc
        ) as low_place
    from highest
    where place > $per_direction
)

select
    * exclude (place),
    'gainer' as direction,
    place as rank,
    snapshot_ts // 3600000000 * 3600000000 as hour_us
from highest
where place <= $per_direction
union all by name
select
    * exclude (place, low_place),
    'loser' as direction,
    low_place as rank,
    snapshot_ts // 3600000000 * 3600000000 as hour_us
from lowest
where low_place <= $per_direction
