-- Purpose: features of each product's newest trade, seconds after it: what a model learnt from gold.trade_features
-- is asked with; `history` says how many trades before it are known: below 500 a window may be null. Its columns are
-- the table's, so that a new feature is here without being listed twice.
-- Parameters: none.
-- Grain: one row per venue, product_id.
create or replace view mart.feature_latest as
select latest.* -- noqa: AM04
from live.feature_latest as latest;
