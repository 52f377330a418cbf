-- Purpose: what publication deletes by and what readers of the mart ask by: time alone, or a product without its venue.
-- Parameters: none.
-- Grain: none.
create index if not exists gold_price_metrics_ts on gold.price_metrics (ts);
create index if not exists live_price_metrics_ts on live.price_metrics (ts);
create index if not exists gold_top_movers_snapshot_ts on gold.top_movers (snapshot_ts);
create index if not exists live_top_movers_snapshot_ts on live.top_movers (snapshot_ts);
create index if not exists gold_bars_open_ts on gold.bars (open_ts);
create index if not exists gold_bars_product_interval_open_ts on gold.bars (product_id, interval, open_ts);
create index if not exists gold_product_day_day on gold.product_day (day);
create index if not exists gold_trade_features_event_ts on gold.trade_features (event_ts);
