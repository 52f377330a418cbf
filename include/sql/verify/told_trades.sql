-- Purpose: what the messages say of each trade; where they disagree, the one that agrees with the truth. (A venue may
--   send a trade again with other content: silver refuses that one, and it is no fault of bronze's.)
-- Parameters: none.
-- Grain: one row per venue, product and trade of items_trades. A message without sequence (REST) is given the truth's.
with told as (
    select
        item.venue,
        item.product_id,
        item.trade_id,
        item.price,
        item.size,
        item.taker_side,
        item.event_ts,
        coalesce(item.sequence, truth.sequence) as sequence,
        coalesce(
            item.price = truth.price
            and item.size = truth.size
            and item.taker_side = truth.taker_side
            and item.event_ts = truth.event_ts
            and coalesce(item.sequence, truth.sequence) is not distinct from truth.sequence,
            false
        ) as agrees
    from items_trades as item
    left join truth_trades as truth using (venue, product_id, trade_id)
    -- polls of another's client, that may miss some: the truth has no such venue
    where not starts_with(item.venue, 'ccxt_')
)

select * exclude (agrees)
from told
qualify row_number() over (partition by venue, product_id, trade_id order by agrees desc) = 1
