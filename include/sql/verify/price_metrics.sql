-- Purpose: the measures of every observation in the table `observations`, by definition: each observation joined with
--   all observations of its series in the 1,236 s before it.
-- Parameters: $tolerance_us, how much older than 60 s (300 s) the observation of a change may be; $from_us, where the
--   rows that are asked for begin.
-- Grain: one row per observation.
with series as (
    select
        *,
        lag(price) over earlier as previous_price,
        lag(last_updated) over earlier as previous_ts
    from observations
    window earlier as (partition by source, asset_id, vs_currency order by last_updated)
),

-- a lookback is shorter than a bucket, so it lies in the observation's own bucket or in the one before
asked as (
    select
        *,
        last_updated // 1236000000 as bucket
    from series
    where last_updated >= $from_us
),

earlier as (
    select
        source,
        asset_id,
        vs_currency,
        last_updated as ts,
        price,
        previous_ts,
        ln(price::double / previous_price::double) as log_return,
        last_updated // 1236000000 + unnest([0, 1]) as bucket
    from series
),

pairs as (
    select
        o.source,
        o.asset_id,
        o.vs_currency,
        o.last_updated as ts,
        o.price as p,
        e.price as q,
        -- differences keep the digits that a mean of large prices would lose
        (e.price - o.price)::double as difference,
        e.ts as earlier_ts,
        o.last_updated - e.ts as age_us,
        e.ts > o.last_updated - 300000000 as in_window,
        case when e.previous_ts > o.last_updated - 300000000 then e.log_return end as log_return
    from asked as o
    inner join earlier as e
        on
            o.source = e.source
            and o.asset_id = e.asset_id
            and o.vs_currency = e.vs_currency
            and o.bucket = e.bucket
            and e.ts <= o.last_updated
            and e.ts > o.last_updated - 1236000000
),

measured as (
    select
        source,
        asset_id,
        vs_currency,
        ts,
        any_value(p) as p,
        arg_max(q, earlier_ts) filter (where age_us between 60000000 and 60000000 + $tolerance_us) as minute_ago,
        arg_max(q, earlier_ts) filter (
            where age_us between 300000000 and 300000000 + $tolerance_us
        ) as five_minutes_ago,
        avg(difference) filter (where in_window) as mean_difference,
        sum(pow(2, -age_us / 61800000.0) * difference) / sum(pow(2, -age_us / 61800000.0)) as weighted_difference,
        case when count(*) filter (where in_window) > 1 then stddev_samp(difference) filter (where in_window) end
            as volatility_5m,
        case
            when count(*) filter (where in_window) > 1
                then sqrt(sum(log_return * log_return) filter (where in_window))
        end as realized_volatility_5m,
        count(*) filter (where in_window) as observations_5m
    from pairs
    group by all
)

select
    m.source,
    m.asset_id,
    m.vs_currency,
    m.ts,
    o.symbol,
    o.name,
    o.price,
    o.market_cap,
    o.market_cap_rank,
    o.volume_24h,
    o.polled_at,
    100 * (m.p::double / m.minute_ago::double - 1) as change_1min,
    100 * (m.p::double / m.five_minutes_ago::double - 1) as change_5min,
    m.p::double + m.mean_difference as sma_5m,
    m.p::double + m.weighted_difference as ema_3m,
    m.volatility_5m,
    m.realized_volatility_5m,
    m.observations_5m,
    m.ts // 3600000000 * 3600000000 as hour_us
from measured as m
inner join observations as o
    on
        m.source = o.source
        and m.asset_id = o.asset_id
        and m.vs_currency = o.vs_currency
        and m.ts = o.last_updated
