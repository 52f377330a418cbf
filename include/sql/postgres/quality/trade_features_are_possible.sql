-- Purpose: every trade has a price, a size and a side, and its features are numbers that trades can give.
-- Severity: hard
-- Owner: gold_trade_features
-- Subject: gold.trade_features
-- Gate: yes
-- A failing row: is a trade with a price or size of zero or less, no taker's side, a window's lowest price above its
-- highest, or a share outside of 0 to 1.
-- What to do: rewrite its hour with Dag gold_trade_features; where it comes again, `marketflow verify --layers gold`
-- says which feature is wrong.
-- Parameters: rows (identifier), since (timestamptz).
-- Grain: one row per impossible trade.
select
    venue,
    product_id,
    trade_id,
    event_ts,
    price,
    size,
    taker_side
from $rows
where
    event_ts >= $since
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
