-- Purpose: which trades of the truth the platform must have received, and which of them a hole of the ledger explains.
-- Parameters: $start, µs of the market's time; $cut, µs; $quiet, µs a first message may take.
--   Reads the tables truth_trades, items_trades, messages_trades_raw, collected, heard and trade_gap.
-- Grain: one row per trade of truth_trades that is asked for, received, or was made before collection began.
-- A product that never said anything must still be heard a while after its venue's first message. Pages of a backfill
-- are no message of a venue that is listened to
with venue_start as (
    select
        venue,
        min(received_at) as first_at
    from messages_trades_raw
    where origin <> 'backfill'
    group by all
),

received as (
    select distinct
        venue,
        product_id,
        trade_id
    from items_trades
),

explained as (
    select distinct
        truth.venue,
        truth.product_id,
        truth.trade_id
    from truth_trades as truth
    inner join trade_gap as gap
        on
            truth.venue = gap.venue
            and truth.product_id = gap.product_id
            and truth.trade_id between gap.first_missing_id and gap.last_missing_id
    where gap.status in ('open', 'unrecoverable') or gap.healed_at is null or gap.healed_at > $cut
),

placed as (
    select
        truth.*,
        received.trade_id is not null as received,
        explained.trade_id is not null as known_gap,
        case
            when collected.first_id is not null then truth.trade_id < collected.first_id
            else truth.market_us < coalesce(venue_start.first_at, 0) + $quiet
        end as before_start,
        heard.end_us
    from truth_trades as truth
    left join heard using (venue, product_id)
    left join collected using (venue, product_id)
    left join venue_start using (venue)
    left join received using (venue, product_id, trade_id)
    left join explained using (venue, product_id, trade_id)
)

select
    * exclude (end_us),
    not before_start
    and end_us is not null
    and market_us >= $start
    and market_us <= end_us as asked
from placed
