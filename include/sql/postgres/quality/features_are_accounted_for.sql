-- Purpose: every trade of an hour is a row of features or was left out for want of a history.
-- Severity: hard
-- Owner: gold_trade_features
-- Subject: ops.gold_accounting
-- Gate: no
-- A failing row: is a product's hour in which trades were lost between silver and features.
-- What to do: rewrite the hour with Dag gold_trade_features.
-- Parameters: since (timestamptz).
-- Grain: one row per product and hour that does not balance.
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
    hour >= $since
    and trades <> row_count + left_out
order by hour
