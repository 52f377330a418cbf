-- Purpose: read the plain Coinbase messages of a topic; everything unusual is left to the strict reader in Python.
-- Parameters: $products, the canonical products that are collected.
-- Grain: one row per message of the view raw; kind is trade, quote, nothing (no data) or careful (not read here).
with texts as (
    select
        part,
        "position",
        received_at,
        case
            when
                venue = 'coinbase_exchange'
                and coalesce(http_status, 200) = 200
                and not coalesce(oversize, false)
                and coalesce(channel, '') not in ('trades', 'candles')
                and received_at is not null
                then try(decode("value"))
        end as message
    from raw
),

-- DuckDB's JSON takes trailing commas, NaN and Infinity: a text that may hold one is not plain
guarded as (
    select
        part,
        "position",
        received_at,
        case
            when json_valid(message) and not regexp_matches(message, ',\s*[}\]]|nan|inf|\\u', 'i') then message
        end as message
    from texts
),

-- of a name that occurs twice DuckDB takes the first value, and every other reader the last
single as (
    select
        part,
        "position",
        received_at,
        case when len(json_keys(message)) = len(list_distinct(json_keys(message))) then message end as message
    from guarded
),

fields as (
    select
        part,
        "position",
        received_at,
        json_extract_string(
            message,
            [
                '$.type', '$.product_id', '$.trade_id', '$.sequence', '$.time', '$.side', '$.price', '$.size',
                '$.best_bid', '$.best_ask', '$.best_bid_size', '$.best_ask_size',
                '$.open_24h', '$.high_24h', '$.low_24h', '$.volume_24h'
            ]
        ) as f,
        json_type(
            message,
            [
                '$.type', '$.product_id', '$.trade_id', '$.sequence', '$.time', '$.side', '$.price', '$.size',
                '$.best_bid', '$.best_ask', '$.best_bid_size', '$.best_ask_size',
                '$.open_24h', '$.high_24h', '$.low_24h', '$.volume_24h'
            ]
        ) as t
    from single
),

typed as (
    select
        part,
        "position",
        f[1] as message_type,
        f[2] as product_id,
        try_cast(f[3] as bigint) as trade_id,
        try_cast(f[4] as bigint) as sequence,
        case
            when regexp_full_match(f[5], '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z')
                then epoch_us(try_cast(f[5] as timestamp))
        end as event_ts,
        f[6] as side_raw,
        -- the wire has the maker's side
        case f[6] when 'buy' then 'sell' when 'sell' then 'buy' end as taker_side,
        try_cast(f[7] as decimal(38, 18)) as price,
        try_cast(f[8] as decimal(38, 18)) as size,
        try_cast(f[9] as decimal(38, 18)) as best_bid,
        try_cast(f[10] as decimal(38, 18)) as best_ask,
        try_cast(f[11] as decimal(38, 18)) as best_bid_size,
        try_cast(f[12] as decimal(38, 18)) as best_ask_size,
        try_cast(f[13] as decimal(38, 18)) as open_24h,
        try_cast(f[14] as decimal(38, 18)) as high_24h,
        try_cast(f[15] as decimal(38, 18)) as low_24h,
        try_cast(f[16] as decimal(38, 18)) as volume_24h,
        coalesce(
            t[1] = 'VARCHAR' and t[2] = 'VARCHAR' and t[5] = 'VARCHAR' and list_contains($products, f[2])
            and (t[3] is null or t[3] = 'UBIGINT') and (t[4] is null or t[4] = 'UBIGINT')
            -- every number that is there is a text of plain digits that Decimal(38,18) holds
            and list_bool_and([
                coalesce(
                    t[i] is null
                    or t[i] = 'VARCHAR' and regexp_full_match(f[i], '[0-9]{1,20}(\.[0-9]{1,18})?'), false
                )
                for i in [7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
            ]),
            false
        ) as well_typed,
        received_at
    from fields
),

judged as (
    select
        *,
        well_typed
        and event_ts >= epoch_us(timestamp '2009-01-01 00:00:00')
        and event_ts <= received_at + 60000000
        and (t.price is null or t.price > 0) as plain
    from typed as t
)

select
    * exclude (well_typed, plain, received_at),
    case
        when message_type in ('heartbeat', 'subscriptions', 'error') then 'nothing'
        when
            plain
            and message_type in ('match', 'last_match')
            and trade_id is not null
            and price is not null
            and size > 0
            and taker_side is not null
            and price::double * size::double < 1e19
            then 'trade'
        when plain and message_type = 'ticker' and best_bid > 0 and best_ask >= best_bid then 'quote'
        else 'careful'
    end as kind
from judged
