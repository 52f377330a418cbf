-- Purpose: what each feature and target of gold.trade_features is, in the order of docs/features.md.
-- Parameters: none.
-- Grain: one row per feature or target.
create or replace view mart.feature_catalogue as
select
    catalogue.name,
    catalogue.feature_group,
    catalogue.type,
    catalogue.unit,
    catalogue.window_trades,
    catalogue.lookback,
    catalogue.horizon,
    catalogue.reads_future,
    catalogue.description,
    catalogue.formula,
    catalogue.null_rule,
    catalogue.source
from ops.feature_catalogue as catalogue
order by catalogue.position;
