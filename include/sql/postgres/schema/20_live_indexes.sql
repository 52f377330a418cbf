-- Purpose: let the live query find a market's recent rows without reading thirty days of them.
-- Parameters: none.
-- Grain: three indexes.
create index if not exists asset_observation_market_time
on live.asset_observation (source, vs_currency, last_updated);

create index if not exists asset_observation_market_poll
on live.asset_observation (source, vs_currency, poll_started_at);

create index if not exists price_metrics_market_time
on live.price_metrics (source, vs_currency, ts);
