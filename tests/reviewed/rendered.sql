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

-- check accounts_balance
select
    table_name,
    snapshot_id,
    committed_at,
    messages,
    ignored,
    parsed,
    unparseable,
    items,
    accepted,
    duplicate,
    rejected
from ops.silver_accounting
where
    committed_at >= %(since)s
    and (
        ignored + parsed + unparseable <> messages
        or accepted + duplicate + rejected <> items
    )
order by committed_at

-- check assets_are_not_stale
with assets as (
    select
        source,
        asset_id,
        vs_currency,
        max(last_updated) as last_updated
    from live.asset_observation
    where last_updated >= %(since)s
    group by source, asset_id, vs_currency
),
sources as (
    select
        source,
        max(last_updated) as last_updated
    from assets
    group by source
)
select
    assets.source,
    assets.asset_id,
    assets.vs_currency,
    assets.last_updated,
    sources.last_updated as newest_of_source
from assets
inner join sources on assets.source = sources.source
where assets.last_updated < sources.last_updated - interval '10 minutes'
order by assets.last_updated

-- check bars_add_up
with minutes as (
    select
        venue,
        product_id,
        date_trunc('hour', open_ts) as hour,
        sum(trade_count) as trade_count,
        sum(volume) as volume,
        sum(notional) as notional,
        max(high) as high,
        min(low) as low
    from "gold"."bars"
    where interval = '1m' and open_ts >= %(since)s
    group by venue, product_id, date_trunc('hour', open_ts)
)
select
    hours.venue,
    hours.product_id,
    hours.open_ts,
    hours.trade_count,
    minutes.trade_count as trade_count_of_minutes,
    hours.volume,
    minutes.volume as volume_of_minutes,
    hours.high,
    minutes.high as high_of_minutes,
    hours.low,
    minutes.low as low_of_minutes
from "gold"."bars" as hours
left join minutes
    on
        hours.venue = minutes.venue
        and hours.product_id = minutes.product_id
        and hours.open_ts = minutes.hour
where
    hours.interval = '1h'
    and hours.open_ts >= %(since)s
    and (hours.trade_count, hours.volume, hours.notional, hours.high, hours.low)
    is distinct from (minutes.trade_count, minutes.volume, minutes.notional, minutes.high, minutes.low)
order by hours.open_ts

-- check bars_are_possible
select
    venue,
    product_id,
    interval,
    open_ts,
    open,
    high,
    low,
    close,
    vwap,
    volume,
    buy_volume,
    sell_volume,
    trade_count
from "gold"."bars"
where
    open_ts >= %(since)s
    and (
        high < low
        or open not between low and high
        or close not between low and high
        or vwap not between low * 0.999999 and high * 1.000001
        or least(open, high, low, close, vwap) <= 0
        or least(volume, notional, buy_volume, sell_volume, trade_count) < 0
        or volume <> buy_volume + sell_volume
        or (trade_count = 0) <> (volume = 0)
        or num_nulls(open, high, low, close, vwap) <> case when trade_count = 0 then 5 else 0 end
        or num_nulls(first_trade_id, last_trade_id) <> case when trade_count = 0 then 2 else 0 end
        or first_trade_id > last_trade_id
        or interval not in ('1m', '5m', '15m', '1h', '1d')
        or date_bin(
            case interval
                when '1m' then interval '1 minute'
                when '5m' then interval '5 minutes'
                when '15m' then interval '15 minutes'
                when '1h' then interval '1 hour'
                else interval '1 day'
            end,
            open_ts,
            timestamptz '1970-01-01 00:00:00+00'
        ) <> open_ts
    )
order by open_ts

-- check days_are_of_bars
select
    days.venue,
    days.product_id,
    days.day,
    days.trade_count,
    bars.trade_count as trade_count_of_bar,
    days.close,
    bars.close as close_of_bar
from gold.product_day as days
inner join gold.bars as bars
    on
        days.venue = bars.venue
        and days.product_id = bars.product_id
        and days.day = bars.open_ts
where
    bars.interval = '1d'
    and days.day >= %(since)s - interval '1 day'
    and (days.trade_count, days.volume, days.high, days.low, days.close)
    is distinct from (bars.trade_count, bars.volume, bars.high, bars.low, bars.close)
order by days.day

-- check features_are_accounted_for
select
    table_name,
    venue,
    product_id,
    hour,
    trades,
    row_count,
    left_out
from ops.gold_accounting
where
    hour >= %(since)s
    and trades <> row_count + left_out
order by hour

-- check gaps_are_closed
select
    venue,
    product_id,
    first_missing_id,
    last_missing_id,
    cause,
    attempts,
    detected_at,
    detail
from ops.trade_gap
where
    status = 'open'
    and detected_at < now() - interval '1 hour'
    and %(since)s <= now()
order by detected_at

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

-- check movers_are_of_metrics
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
    movers.snapshot_ts >= %(since)s
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

-- check price_metrics_are_possible
select
    source,
    asset_id,
    vs_currency,
    ts,
    price,
    change_1min,
    change_5min,
    sma_5m,
    ema_3m,
    volatility_5m,
    realized_volatility_5m,
    observations_5m
from "gold"."price_metrics"
where
    ts >= %(since)s
    and (
        price <= 0
        or least(sma_5m, ema_3m) <= 0
        or least(change_1min, change_5min) <= -100
        or least(volatility_5m, realized_volatility_5m) < 0
        or observations_5m < 1
        or (volatility_5m is null) <> (observations_5m < 2)
        or 'NaN' in (change_1min, change_5min, sma_5m, ema_3m, volatility_5m, realized_volatility_5m)
        or 'Infinity' in (change_1min, change_5min, sma_5m, ema_3m, volatility_5m, realized_volatility_5m)
    )
order by ts

-- check product_days_are_possible
select
    venue,
    product_id,
    day,
    open,
    high,
    low,
    close,
    vwap,
    volume,
    trade_count,
    volatility,
    hours,
    complete_hours
from "gold"."product_day"
where
    day >= %(since)s
    and (
        high < low
        or open not between low and high
        or close not between low and high
        or least(open, high, low, close, vwap) <= 0
        or least(volume, notional, buy_volume, sell_volume, trade_count, gap_minutes, volatility) < 0
        or volume <> buy_volume + sell_volume
        or hours not between 1 and 24
        or complete_hours not between 0 and hours
        or gap_minutes > 1440
        or volatility = 'NaN'
        or day <> date_trunc('day', day)
    )
order by day

-- check rows_have_required_columns.price_metrics
select
    "source", "asset_id", "vs_currency", "ts",
    num_nulls("source", "asset_id", "vs_currency", "ts", "symbol", "name", "price", "polled_at", "sma_5m", "ema_3m", "observations_5m") as nulls
from "gold"."price_metrics"
where
    num_nulls("source", "asset_id", "vs_currency", "ts", "symbol", "name", "price", "polled_at", "sma_5m", "ema_3m", "observations_5m") > 0
    and "ts" >= %(since)s
order by "ts"

-- check rows_have_required_columns.top_movers
select
    "source", "vs_currency", "snapshot_ts", "direction", "rank",
    num_nulls("source", "vs_currency", "snapshot_ts", "poll_id", "direction", "rank", "asset_id", "symbol", "name", "price", "change_5min", "observed_at") as nulls
from "gold"."top_movers"
where
    num_nulls("source", "vs_currency", "snapshot_ts", "poll_id", "direction", "rank", "asset_id", "symbol", "name", "price", "change_5min", "observed_at") > 0
    and "snapshot_ts" >= %(since)s
order by "snapshot_ts"

-- check rows_have_required_columns.bars
select
    "venue", "product_id", "interval", "open_ts",
    num_nulls("venue", "product_id", "interval", "open_ts", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "has_gap", "is_complete") as nulls
from "gold"."bars"
where
    num_nulls("venue", "product_id", "interval", "open_ts", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "has_gap", "is_complete") > 0
    and "open_ts" >= %(since)s
order by "open_ts"

-- check rows_have_required_columns.trade_features
select
    "venue", "product_id", "trade_id",
    num_nulls("venue", "product_id", "trade_id", "event_ts", "price", "size", "taker_side", "is_buy", "aggressor_run_length", "hour_of_day", "day_of_week", "is_weekend", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "is_final") as nulls
from "gold"."trade_features"
where
    num_nulls("venue", "product_id", "trade_id", "event_ts", "price", "size", "taker_side", "is_buy", "aggressor_run_length", "hour_of_day", "day_of_week", "is_weekend", "hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "is_final") > 0
    and "event_ts" >= %(since)s
order by "event_ts"

-- check rows_have_required_columns.product_day
select
    "venue", "product_id", "day",
    num_nulls("venue", "product_id", "day", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "gap_minutes", "hours", "complete_hours", "is_complete") as nulls
from "gold"."product_day"
where
    num_nulls("venue", "product_id", "day", "volume", "notional", "trade_count", "buy_volume", "sell_volume", "gap_minutes", "hours", "complete_hours", "is_complete") > 0
    and "day" >= %(since)s
order by "day"

-- check top_movers_are_ranked
with placed as (
    select
        source,
        vs_currency,
        snapshot_ts,
        direction,
        rank,
        asset_id,
        price,
        change_5min,
        row_number() over ranking as place,
        lag(change_5min) over ranking as change_before,
        count(*) over (partition by source, vs_currency, snapshot_ts, asset_id) as times
    from "gold"."top_movers"
    where snapshot_ts >= %(since)s
    window ranking as (partition by source, vs_currency, snapshot_ts, direction order by rank)
)
select *
from placed
where
    direction not in ('gainer', 'loser')
    or rank <> place
    or times > 1
    or price <= 0
    or change_5min = 'NaN'
    or case direction when 'gainer' then change_5min > change_before else change_5min < change_before end
order by snapshot_ts

-- check trade_features_are_possible
select
    venue,
    product_id,
    trade_id,
    event_ts,
    price,
    size,
    taker_side
from "gold"."trade_features"
where
    event_ts >= %(since)s
    and (
        price <= 0
        or size <= 0
        or taker_side not in ('buy', 'sell')
        or is_buy <> (taker_side = 'buy')
        or min_10_trades > max_10_trades
        or min_100_trades > max_100_trades
        or price::double precision not between min_10_trades * 0.999999999 and max_10_trades * 1.000000001
        or rsi_14_trades not between -0.000001 and 100.000001
        or buy_volume_ratio_100 not between -0.000001 and 1.000001
        or order_flow_imbalance_100 not between -1.000001 and 1.000001
        or least(volatility_10, realized_volatility_10, volume_10, quote_age_ms) < 0
        or gaps_in_window_500 < 0
    )
order by event_ts
