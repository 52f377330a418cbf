-- Purpose: every mover is an observation of gold.price_metrics, with its price and change.
-- Severity: hard
-- Owner: gold_price_metrics
-- Subject: gold.top_movers
-- Gate: no
-- A failing row: is a mover whose observation is not there, or says something else: the two tables of one Dag have
-- come apart.
-- What to do: rewrite the hour with Dag gold_price_metrics, then `marketflow publish` of both tables.
-- Parameters: since (timestamptz).
-- Grain: one row per mover without its observation.
select
    movers.source,
    movers.vs_currency,
    movers.snapshot_ts,
    movers.direction,
    movers.rank,
    movers.asset_id,
    movers.observed_at,
    movers.price,
    metrics.price as price_of_metrics,
    movers.change_5min,
    metrics.change_5min as change_5min_of_metrics
from gold.top_movers as movers
left join gold.price_metrics as metrics
    on
        movers.source = metrics.source
        and movers.asset_id = metrics.asset_id
        and movers.vs_currency = metrics.vs_currency
        and movers.observed_at = metrics.ts
where
    movers.snapshot_ts >= $since
    -- the two are published one after the other; what both have is compared
    and movers.snapshot_ts < (
        select min(audit.published_through) from ops.publish_audit as audit
        where audit.table_name in ('gold.top_movers', 'gold.price_metrics')
    )
    and movers.observed_at >= (select min(oldest.ts) from gold.price_metrics as oldest)
    and (
        movers.price is distinct from metrics.price
        or movers.change_5min is distinct from metrics.change_5min
    )
order by movers.snapshot_ts
