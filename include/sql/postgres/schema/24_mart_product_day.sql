-- Purpose: a day of a product in one row, days that have ended alone; their trades are in mart.bars too, by interval.
-- Parameters: none.
-- Grain: one row per venue, product_id, day (midnight UTC).
create or replace view mart.product_day as
select
    days.venue,
    days.product_id,
    days.day,
    days.open,
    days.high,
    days.low,
    days.close,
    days.volume,
    days.notional,
    days.vwap,
    days.trade_count,
    days.buy_volume,
    days.sell_volume,
    days.volatility,
    days.gap_minutes,
    days.hours,
    days.complete_hours,
    days.is_complete
from gold.product_day as days;
