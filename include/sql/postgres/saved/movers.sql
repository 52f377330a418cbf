-- Purpose: the latest five gainers and five losers of each source; stale_since is empty while they are of now.
-- Parameters: none.
-- Grain: one row per place in the latest ranking.
select
    direction,
    rank,
    symbol,
    price,
    change_1min,
    change_5min,
    volatility_5m,
    snapshot_ts,
    case
        when snapshot_ts < now() - interval '5 minutes' then snapshot_ts + interval '5 minutes'
    end as stale_since,
    source
from mart.top_movers
where
    (source, vs_currency, snapshot_ts) in (
        select
            source,
            vs_currency,
            max(snapshot_ts)
        from mart.top_movers
        group by source, vs_currency
    )
order by source, vs_currency, direction, rank
