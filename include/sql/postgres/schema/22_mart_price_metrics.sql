-- Purpose: measures of every asset: gold up to the last published hour, the stream's own after it. At the border no row
-- is lost or doubled: before it, a row the stream has and gold has not yet (it arrived late) is still shown, and after
-- it a row that only gold has (the stream was away). `layer` says where a row comes from.
-- Parameters: none.
-- Grain: one row per source, asset_id, vs_currency, ts.
create or replace view mart.price_metrics as
select
    gold.source,
    gold.asset_id,
    gold.vs_currency,
    gold.ts,
    gold.symbol,
    gold.name,
    gold.price,
    gold.market_cap,
    gold.market_cap_rank,
    gold.volume_24h,
    gold.polled_at,
    gold.change_1min,
    gold.change_5min,
    gold.sma_5m,
    gold.ema_3m,
    gold.volatility_5m,
    gold.realized_volatility_5m,
    gold.observations_5m,
    'gold' as layer
from gold.price_metrics as gold
where gold.ts < mart.published_through('gold.price_metrics')
union all
select
    live.source,
    live.asset_id,
    live.vs_currency,
    live.ts,
    live.symbol,
    live.name,
    live.price,
    live.market_cap,
    live.market_cap_rank,
    live.volume_24h,
    live.polled_at,
    live.change_1min,
    live.change_5min,
    live.sma_5m,
    live.ema_3m,
    live.volatility_5m,
    live.realized_volatility_5m,
    live.observations_5m,
    'live' as layer
from live.price_metrics as live
where live.ts >= mart.published_through('gold.price_metrics')
union all
select
    live.source,
    live.asset_id,
    live.vs_currency,
    live.ts,
    live.symbol,
    live.name,
    live.price,
    live.market_cap,
    live.market_cap_rank,
    live.volume_24h,
    live.polled_at,
    live.change_1min,
    live.change_5min,
    live.sma_5m,
    live.ema_3m,
    live.volatility_5m,
    live.realized_volatility_5m,
    live.observations_5m,
    'live' as layer
from live.price_metrics as live
where
    live.ts < mart.published_through('gold.price_metrics')
    and not exists (
        select 1
        from gold.price_metrics as gold
        where
            gold.source = live.source
            and gold.asset_id = live.asset_id
            and gold.vs_currency = live.vs_currency
            and gold.ts = live.ts
    )
union all
select
    gold.source,
    gold.asset_id,
    gold.vs_currency,
    gold.ts,
    gold.symbol,
    gold.name,
    gold.price,
    gold.market_cap,
    gold.market_cap_rank,
    gold.volume_24h,
    gold.polled_at,
    gold.change_1min,
    gold.change_5min,
    gold.sma_5m,
    gold.ema_3m,
    gold.volatility_5m,
    gold.realized_volatility_5m,
    gold.observations_5m,
    'gold' as layer
from gold.price_metrics as gold
where
    gold.ts >= mart.published_through('gold.price_metrics')
    and not exists (
        select 1
        from live.price_metrics as live
        where
            live.source = gold.source
            and live.asset_id = gold.asset_id
            and live.vs_currency = gold.vs_currency
            and live.ts = gold.ts
    );
