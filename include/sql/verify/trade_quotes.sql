-- Purpose: the quote that a trade's features may know: the last strictly before it, by sequence where both have one,
--   else by event_ts; of one found by each the later; none that is older than 5 s or later than the trade.
-- Parameters: $start and $end, µs: trades whose event_ts lies in [start, end).
-- Reads: `feature_tape` and `feature_book` (quotes, quote_ts in µs).
-- Grain: one row per trade that has such a quote.
with asked as (
    select
        venue,
        product_id,
        trade_id,
        sequence,
        event_ts
    from feature_tape
    where place >= 500 and event_ts >= $start and event_ts < $end
),

-- of quotes with the same sequence (the same time) the later (that of the higher sequence)
by_sequence as (
    select distinct on (venue, product_id, sequence) *
    from feature_book
    where sequence is not null
    order by venue asc, product_id asc, sequence asc, quote_ts desc
),

by_time as (
    select distinct on (venue, product_id, quote_ts) *
    from feature_book
    order by venue asc, product_id asc, quote_ts asc, sequence desc nulls last
),

without_sequence as (
    select *
    from feature_book
    where sequence is null
),

found as (
    select
        asked.*,
        'sequence' as quote_join,
        book.* exclude (venue, product_id, sequence)
    from asked
    asof inner join by_sequence as book
        on
            asked.venue = book.venue
            and asked.product_id = book.product_id
            and asked.sequence > book.sequence
    -- an as-of join takes a null for the largest
    where asked.sequence is not null
    union all
    select
        asked.*,
        'event_ts' as quote_join,
        book.* exclude (venue, product_id, sequence)
    from asked
    asof inner join without_sequence as book
        on
            asked.venue = book.venue
            and asked.product_id = book.product_id
            and asked.event_ts > book.quote_ts
    where asked.sequence is not null
    union all
    select
        asked.*,
        'event_ts' as quote_join,
        book.* exclude (venue, product_id, sequence)
    from asked
    asof inner join by_time as book
        on
            asked.venue = book.venue
            and asked.product_id = book.product_id
            and asked.event_ts > book.quote_ts
    where asked.sequence is null
),

latest as (
    select distinct on (venue, product_id, trade_id) *
    from found
    -- 'sequence' comes after 'event_ts': of two with the same time it is taken
    order by venue asc, product_id asc, trade_id asc, quote_ts desc, quote_join desc
)

select * exclude (sequence, event_ts)
from latest
where event_ts - quote_ts between 0 and 5000000
