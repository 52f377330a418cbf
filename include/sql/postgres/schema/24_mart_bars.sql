-- Purpose: bars from trades, minutes behind the venue; the open hour's have is_complete false and still change.
-- Parameters: none.
-- Grain: one row per venue, product_id, interval, open_ts.
create or replace view mart.bars as
select
    bars.venue,
    bars.product_id,
    bars.interval,
    bars.open_ts,
    bars.open,
    bars.high,
    bars.low,
    bars.close,
    bars.volume,
    bars.notional,
    bars.vwap,
    bars.trade_count,
    bars.buy_volume,
    bars.sell_volume,
    bars.has_gap,
    bars.is_complete,
    bars.first_trade_id,
    bars.last_trade_id
from gold.bars as bars;
