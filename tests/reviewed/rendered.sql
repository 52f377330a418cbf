-- publish/delete_all, gold.price_metrics
delete from "gold"."price_metrics";

-- publish/delete_all, gold.top_movers
delete from "gold"."top_movers";

-- publish/delete_all, gold.bars
delete from "gold"."bars";

-- publish/delete_all, gold.trade_features
delete from "gold"."trade_features";

-- publish/delete_all, gold.product_day
delete from "gold"."product_day";

-- publish/delete_hours, gold.price_metrics
delete from "gold"."price_metrics" as published
using unnest(%(hours)s::timestamptz[]) as replaced (hour)
where
    published."ts" >= replaced.hour
    and published."ts" < replaced.hour + interval '1 hour';

-- publish/delete_hours, gold.top_movers
delete from "gold"."top_movers" as published
using unnest(%(hours)s::timestamptz[]) as replaced (hour)
where
    published."snapshot_ts" >= replaced.hour
    and published."snapshot_ts" < replaced.hour + interval '1 hour';

-- publish/delete_hours, gold.bars
delete from "gold"."bars" as published
using unnest(%(hours)s::timestamptz[]) as replaced (hour)
where
    published."open_ts" >= replaced.hour
    and published."open_ts" < replaced.hour + interval '1 hour';

-- publish/delete_hours, gold.trade_features
delete from "gold"."trade_features" as published
using unnest(%(hours)s::timestamptz[]) as replaced (hour)
where
    published."event_ts" >= replaced.hour
    and published."event_ts" < replaced.hour + interval '1 hour';

-- publish/delete_hours, gold.product_day
delete from "gold"."product_day" as published
using unnest(%(hours)s::timestamptz[]) as replaced (hour)
where
    published."day" >= replaced.hour
    and published."day" < replaced.hour + interval '1 hour';

-- publish/record, gold.price_metrics
insert into ops.publish_audit as audit (
    table_name, last_snapshot_id, published_through, published_at, hours, row_count
)
values (
    %(table_name)s, %(last_snapshot_id)s, %(published_through)s, now(), %(hours)s, %(row_count)s
)
on conflict (table_name) do update set
    last_snapshot_id = excluded.last_snapshot_id,
    published_through = greatest(audit.published_through, excluded.published_through),
    published_at = excluded.published_at,
    hours = excluded.hours,
    row_count = excluded.row_count;

-- check keys_are_unique.price_metrics
select
    "source", "asset_id", "vs_currency", "ts",
    count(*) as copies,
    min("ts") as of
from "gold"."price_metrics"
where "ts" >= %(since)s
group by "source", "asset_id", "vs_currency", "ts"
having count(*) > 1
order by of

-- check keys_are_unique.top_movers
select
    "source", "vs_currency", "snapshot_ts", "direction", "rank",
    count(*) as copies,
    min("snapshot_ts") as of
from "gold"."top_movers"
where "snapshot_ts" >= %(since)s
group by "source", "vs_currency", "snapshot_ts", "direction", "rank"
having count(*) > 1
order by of

-- check keys_are_unique.bars
select
    "venue", "product_id", "interval", "open_ts",
    count(*) as copies,
    min("open_ts") as of
from "gold"."bars"
where "open_ts" >= %(since)s
group by "venue", "product_id", "interval", "open_ts"
having count(*) > 1
order by of

-- check keys_are_unique.trade_features
select
    "venue", "product_id", "trade_id",
    count(*) as copies,
    min("event_ts") as of
from "gold"."trade_features"
where "event_ts" >= %(since)s
group by "venue", "product_id", "trade_id"
having count(*) > 1
order by of

-- check keys_are_unique.product_day
select
    "venue", "product_id", "day",
    count(*) as copies,
    min("day") as of
from "gold"."product_day"
where "day" >= %(since)s
group by "venue", "product_id", "day"
having count(*) > 1
order by of

-- check numbers_are_finite.price_metrics
select
    "source", "asset_id", "vs_currency", "ts",
    "ts" as of,
    (
        select string_agg(each.key, ', ' order by each.key)
        from (select "change_1min", "change_5min", "sma_5m", "ema_3m", "volatility_5m", "realized_volatility_5m") as measured
        cross join jsonb_each_text(to_jsonb(measured)) as each
        where each.value in ('NaN', 'Infinity', '-Infinity')
    ) as not_finite
from "gold"."price_metrics"
where
    (greatest("change_1min", "change_5min", "sma_5m", "ema_3m", "volatility_5m", "realized_volatility_5m") >= 'Infinity' or least("change_1min", "change_5min", "sma_5m", "ema_3m", "volatility_5m", "realized_volatility_5m") <= '-Infinity')
    and "ts" >= %(since)s
order by "ts"

-- check numbers_are_finite.top_movers
select
    "source", "vs_currency", "snapshot_ts", "direction", "rank",
    "snapshot_ts" as of,
    (
        select string_agg(each.key, ', ' order by each.key)
        from (select "change_1min", "change_5min", "volatility_5m") as measured
        cross join jsonb_each_text(to_jsonb(measured)) as each
        where each.value in ('NaN', 'Infinity', '-Infinity')
    ) as not_finite
from "gold"."top_movers"
where
    (greatest("change_1min", "change_5min", "volatility_5m") >= 'Infinity' or least("change_1min", "change_5min", "volatility_5m") <= '-Infinity')
    and "snapshot_ts" >= %(since)s
order by "snapshot_ts"

-- check numbers_are_finite.trade_features
select
    "venue", "product_id", "trade_id",
    "event_ts" as of,
    (
        select string_agg(each.key, ', ' order by each.key)
        from (select "ma_10_trades", "ma_50_trades", "ma_100_trades", "ma_500_trades", "min_10_trades", "min_50_trades", "min_100_trades", "max_10_trades", "max_50_trades", "max_100_trades", "price_range_10", "price_range_50", "price_range_100", "price_position_10", "price_position_50", "price_position_100", "price_position_500", "volatility_10", "volatility_50", "volatility_100", "volatility_500", "zscore_50", "zscore_100", "zscore_500", "ema_10_trades", "ema_50_trades", "ema_100_trades", "price_change_1", "price_change_5", "price_change_10", "price_change_50", "price_change_100", "return_1", "return_5", "return_10", "return_50", "return_100", "log_return_1", "price_vs_ma_10", "price_vs_ma_50", "price_vs_ma_100", "realized_volatility_10", "realized_volatility_50", "realized_volatility_100", "realized_volatility_500", "rsi_14_trades", "macd_12_26", "macd_signal_9", "macd_histogram", "volume_10", "volume_50", "volume_100", "volume_500", "volume_ma_10", "volume_ma_50", "volume_ma_100", "volume_ratio_10", "volume_ratio_50", "vwap_10", "vwap_50", "vwap_100", "vwap_500", "price_vs_vwap_50", "price_vs_vwap_100", "price_vs_vwap_500", "buy_sell_ratio_50", "buy_sell_ratio_100", "buy_volume_50", "buy_volume_100", "sell_volume_50", "sell_volume_100", "buy_volume_ratio_50", "buy_volume_ratio_100", "order_flow_imbalance_10", "order_flow_imbalance_50", "order_flow_imbalance_100", "order_flow_imbalance_500", "signed_volume_10", "signed_volume_50", "signed_volume_100", "kyle_lambda_100", "kyle_lambda_500", "amihud_50", "amihud_100", "amihud_500", "seconds_since_previous", "trades_per_second_10", "trades_per_second_50", "trades_per_second_100", "trades_per_second_500", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "best_bid", "best_ask", "mid_price", "microprice", "bid_ask_spread", "spread_pct", "spread_bps", "book_imbalance", "price_vs_bid", "price_vs_ask", "effective_spread_bps", "quote_age_ms", "future_price_10", "future_price_50", "target_return_10", "target_return_50") as measured
        cross join jsonb_each_text(to_jsonb(measured)) as each
        where each.value in ('NaN', 'Infinity', '-Infinity')
    ) as not_finite
from "gold"."trade_features"
where
    (greatest("ma_10_trades", "ma_50_trades", "ma_100_trades", "ma_500_trades", "min_10_trades", "min_50_trades", "min_100_trades", "max_10_trades", "max_50_trades", "max_100_trades", "price_range_10", "price_range_50", "price_range_100", "price_position_10", "price_position_50", "price_position_100", "price_position_500", "volatility_10", "volatility_50", "volatility_100", "volatility_500", "zscore_50", "zscore_100", "zscore_500", "ema_10_trades", "ema_50_trades", "ema_100_trades", "price_change_1", "price_change_5", "price_change_10", "price_change_50", "price_change_100", "return_1", "return_5", "return_10", "return_50", "return_100", "log_return_1", "price_vs_ma_10", "price_vs_ma_50", "price_vs_ma_100", "realized_volatility_10", "realized_volatility_50", "realized_volatility_100", "realized_volatility_500", "rsi_14_trades", "macd_12_26", "macd_signal_9", "macd_histogram", "volume_10", "volume_50", "volume_100", "volume_500", "volume_ma_10", "volume_ma_50", "volume_ma_100", "volume_ratio_10", "volume_ratio_50", "vwap_10", "vwap_50", "vwap_100", "vwap_500", "price_vs_vwap_50", "price_vs_vwap_100", "price_vs_vwap_500", "buy_sell_ratio_50", "buy_sell_ratio_100", "buy_volume_50", "buy_volume_100", "sell_volume_50", "sell_volume_100", "buy_volume_ratio_50", "buy_volume_ratio_100", "order_flow_imbalance_10", "order_flow_imbalance_50", "order_flow_imbalance_100", "order_flow_imbalance_500", "signed_volume_10", "signed_volume_50", "signed_volume_100", "kyle_lambda_100", "kyle_lambda_500", "amihud_50", "amihud_100", "amihud_500", "seconds_since_previous", "trades_per_second_10", "trades_per_second_50", "trades_per_second_100", "trades_per_second_500", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "best_bid", "best_ask", "mid_price", "microprice", "bid_ask_spread", "spread_pct", "spread_bps", "book_imbalance", "price_vs_bid", "price_vs_ask", "effective_spread_bps", "quote_age_ms", "future_price_10", "future_price_50", "target_return_10", "target_return_50") >= 'Infinity' or least("ma_10_trades", "ma_50_trades", "ma_100_trades", "ma_500_trades", "min_10_trades", "min_50_trades", "min_100_trades", "max_10_trades", "max_50_trades", "max_100_trades", "price_range_10", "price_range_50", "price_range_100", "price_position_10", "price_position_50", "price_position_100", "price_position_500", "volatility_10", "volatility_50", "volatility_100", "volatility_500", "zscore_50", "zscore_100", "zscore_500", "ema_10_trades", "ema_50_trades", "ema_100_trades", "price_change_1", "price_change_5", "price_change_10", "price_change_50", "price_change_100", "return_1", "return_5", "return_10", "return_50", "return_100", "log_return_1", "price_vs_ma_10", "price_vs_ma_50", "price_vs_ma_100", "realized_volatility_10", "realized_volatility_50", "realized_volatility_100", "realized_volatility_500", "rsi_14_trades", "macd_12_26", "macd_signal_9", "macd_histogram", "volume_10", "volume_50", "volume_100", "volume_500", "volume_ma_10", "volume_ma_50", "volume_ma_100", "volume_ratio_10", "volume_ratio_50", "vwap_10", "vwap_50", "vwap_100", "vwap_500", "price_vs_vwap_50", "price_vs_vwap_100", "price_vs_vwap_500", "buy_sell_ratio_50", "buy_sell_ratio_100", "buy_volume_50", "buy_volume_100", "sell_volume_50", "sell_volume_100", "buy_volume_ratio_50", "buy_volume_ratio_100", "order_flow_imbalance_10", "order_flow_imbalance_50", "order_flow_imbalance_100", "order_flow_imbalance_500", "signed_volume_10", "signed_volume_50", "signed_volume_100", "kyle_lambda_100", "kyle_lambda_500", "amihud_50", "amihud_100", "amihud_500", "seconds_since_previous", "trades_per_second_10", "trades_per_second_50", "trades_per_second_100", "trades_per_second_500", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "best_bid", "best_ask", "mid_price", "microprice", "bid_ask_spread", "spread_pct", "spread_bps", "book_imbalance", "price_vs_bid", "price_vs_ask", "effective_spread_bps", "quote_age_ms", "future_price_10", "future_price_50", "target_return_10", "target_return_50") <= '-Infinity')
    and "event_ts" >= %(since)s
order by "event_ts"

-- check numbers_are_finite.product_day
select
    "venue", "product_id", "day",
    "day" as of,
    (
        select string_agg(each.key, ', ' order by each.key)
        from (select "volatility") as measured
        cross join jsonb_each_text(to_jsonb(measured)) as each
        where each.value in ('NaN', 'Infinity', '-Infinity')
    ) as not_finite
from "gold"."product_day"
where
    (greatest("volatility") >= 'Infinity' or least("volatility") <= '-Infinity')
    and "day" >= %(since)s
order by "day"

-- check rows_have_required_columns.price_metrics
select
    "source", "asset_id", "vs_currency", "ts",
    "ts" as of,
    num_nulls("source", "asset_id", "vs_currency", "ts", "symbol", "name", "price", "polled_at", "sma_5m", "ema_3m", "observations_5m") as nulls
from "gold"."price_metrics"
where
    num_nulls("source", "asset_id", "vs_currency", "ts", "symbol", "name", "price", "polled_at", "sma_5m", "ema_3m", "observations_5m") > 0
    and "ts" >= %(since)s
order by "ts"

-- check rows_have_required_columns.top_movers
select
    "source", "vs_currency", "snapshot_ts", "direction", "rank",
    "snapshot_ts" as of,
    num_nulls("source", "vs_currency", "snapshot_ts", "poll_id", "direction", "rank", "asset_id", "symbol", "name", "price", "change_5min", "observed_at") as nulls
from "gold"."top_movers"
where
    num_nulls("source", "vs_currency", "snapshot_ts", "poll_id", "direction", "rank", "asset_id", "symbol", "name", "price", "change_5min", "observed_at") > 0
    and "snapshot_ts" >= %(since)s
order by "snapshot_ts"

-- check rows_have_required_columns.bars
select
    "venue", "product_id", "interval", "open_ts",
    "open_ts" as of,
    num_nulls("venue", "product_id", "interval", "open_ts", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "has_gap", "is_complete") as nulls
from "gold"."bars"
where
    num_nulls("venue", "product_id", "interval", "open_ts", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "has_gap", "is_complete") > 0
    and "open_ts" >= %(since)s
order by "open_ts"

-- check rows_have_required_columns.trade_features
select
    "venue", "product_id", "trade_id",
    "event_ts" as of,
    num_nulls("venue", "product_id", "trade_id", "event_ts", "price", "size", "taker_side", "is_buy", "aggressor_run_length", "hour_of_day", "day_of_week", "is_weekend", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "is_final") as nulls
from "gold"."trade_features"
where
    num_nulls("venue", "product_id", "trade_id", "event_ts", "price", "size", "taker_side", "is_buy", "aggressor_run_length", "hour_of_day", "day_of_week", "is_weekend", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "is_final") > 0
    and "event_ts" >= %(since)s
order by "event_ts"

-- check rows_have_required_columns.product_day
select
    "venue", "product_id", "day",
    "day" as of,
    num_nulls("venue", "product_id", "day", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "gap_minutes", "hours", "complete_hours", "is_complete") as nulls
from "gold"."product_day"
where
    num_nulls("venue", "product_id", "day", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "gap_minutes", "hours", "complete_hours", "is_complete") > 0
    and "day" >= %(since)s
order by "day"
