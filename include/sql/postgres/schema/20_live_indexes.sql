-- Purpose: let the live queries find a market's recent rows without reading thirty days of them, and a product's quotes
-- by their time.
-- Parameters: none.
-- Grain: four indexes.
create index if not exists asset_observation_market_time
on live.asset_observation (source, vs_currency, last_updated);

create index if not exists asset_observation_market_poll
on live.asset_observation (source, vs_currency, poll_started_at);

create index if not exists price_metrics_market_time
on live.price_metrics (source, vs_currency, ts);

create index if not exists quote_tail_product_time
on live.quote_tail (venue, product_id, event_ts);
