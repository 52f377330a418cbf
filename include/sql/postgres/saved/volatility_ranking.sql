-- Purpose: which assets moved the most around their mean in the last five minutes, as a share of price.
-- Parameters: rows=20
-- Grain: one row per asset, its newest observation of the last ten minutes.
select
    newest.symbol,
    newest.asset_id,
    newest.price,
    newest.volatility_5m,
    100 * newest.volatility_5m / nullif(newest.price::double precision, 0) as volatility_pct,
    newest.ts
from (
    select distinct on (source, asset_id, vs_currency)
        symbol,
        asset_id,
        price,
        volatility_5m,
        ts
    from mart.price_metrics
    where ts > now() - interval '10 minutes'
    order by source asc, asset_id asc, vs_currency asc, ts desc
) as newest
where newest.volatility_5m is not null
order by volatility_pct desc
limit $rows
