-- Purpose: what the pages say of each published price; where they disagree, the one that agrees with the truth.
-- Parameters: none.
-- Grain: one row per source, asset, currency and last_updated of items_asset_prices.
with told as (
    select
        item.source,
        item.asset_id,
        item.vs_currency,
        item.last_updated,
        item.price,
        item.market_cap,
        coalesce(item.price = truth.price and item.market_cap is not distinct from truth.market_cap, false) as agrees
    from items_asset_prices as item
    left join truth_prices as truth using (source, asset_id, vs_currency, last_updated)
)

select * exclude (agrees)
from told
qualify row_number() over (partition by source, asset_id, vs_currency, last_updated order by agrees desc) = 1
