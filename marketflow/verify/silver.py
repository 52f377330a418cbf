"""Silver: every fact that bronze holds up to the watermark is a row, once, with the values of its first message.

Leaves for the layers below `blamed_asset_prices` (keys that are wrong here or in bronze) and the loaded tables
`silver_trades`, `silver_quotes`, `silver_asset_prices` and `silver_candles`.
"""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

import json
from dataclasses import dataclass

from marketflow.contracts.topics import CANDLES, PRICES, TICKER, TRADES, Topic
from marketflow.verify.case import Case
from marketflow.verify.compare import Subject, compare
from marketflow.verify.report import Comparison
from marketflow.verify.sources import LakeTable

_PLACE = ("topic", "part", "position", "item_index")


@dataclass(frozen=True, slots=True)
class Source:
    """One silver table: where it comes from, its key, its values, and which of them make a repeated fact the same.

    Of `content` a repeat must agree or is quarantined; all are SQL over the items. `times` are timestamps in the lake.
    """

    kind: str
    topic: Topic
    key: tuple[str, ...]
    values: tuple[str, ...]
    content: tuple[str, ...]
    times: tuple[str, ...]
    product: str
    received: str = "received_at"


_QUOTE = (
    *("best_bid", "best_bid_size", "best_ask", "best_ask_size", "last_price", "last_trade_id"),
    *("open_24h", "high_24h", "low_24h", "volume_24h"),
)
_PRICE = (
    *("symbol", "name", "price", "market_cap", "market_cap_rank", "fully_diluted_valuation", "volume_24h"),
    *("high_24h", "low_24h", "change_24h_pct", "circulating_supply", "total_supply", "max_supply"),
)
_CANDLE = ("open", "high", "low", "close", "volume")
SOURCES = (
    Source(
        "trades",
        TRADES,
        ("venue", "product_id", "trade_id"),
        (
            *("price", "size", "notional", "taker_side", "side_raw", "event_ts", "received_at", "sequence", "origin"),
            "float_born",
        ),
        ("price", "size", "taker_side", "event_ts // 1000"),
        ("event_ts", "received_at"),
        "product_id",
    ),
    Source(
        "quotes",
        TICKER,
        # the moment is a key only where the venue gives no sequence
        ("venue", "product_id", "sequence", "moment"),
        ("event_ts", *_QUOTE, "received_at", "origin"),
        ("event_ts", *_QUOTE),
        ("event_ts", "received_at"),
        "product_id",
    ),
    Source(
        "asset_prices",
        PRICES,
        ("source", "asset_id", "vs_currency", "last_updated"),
        (*_PRICE, "polled_at", "poll_id", "poll_started_at", "origin"),
        _PRICE,
        ("last_updated", "polled_at", "poll_started_at"),
        "source || ' ' || vs_currency",
        received="polled_at",
    ),
    Source(
        "candles",
        CANDLES,
        ("venue", "product_id", "interval", "open_ts"),
        (*_CANDLE, "notional", "trade_count", "received_at", "origin"),
        _CANDLE,
        ("open_ts", "received_at"),
        "product_id",
    ),
)
# kinds that the truth tells of, so that bronze may be to blame for one of their keys
_TOLD = ("trades", "asset_prices")


def check(case: Case) -> None:
    """Hold each silver table, the quarantine and the accounting against what the bytes say."""
    case.space.table("refusals", f"select {', '.join(_PLACE)}, kind as of_table from items_refused limit 0")
    case.space.table("either_way", f"select {', '.join(_PLACE)} from items_refused limit 0")
    case.space.table("watermarks", "select '' as of_table, 0 as part, 0::bigint as next limit 0")
    for source in SOURCES:
        _watermark(case, source)
        _load(case, source, case.tables[f"silver.{source.kind}"])
        _expected(case, source)
        _compare(case, source)
        _accounting(case, source)
    _quarantine(case)


def _watermark(case: Case, source: Source) -> None:
    """Next offsets from the newest commit that says so. Rows without a watermark are a fault of their own."""
    table = case.tables[f"silver.{source.kind}"]
    topic = source.topic.full_name(case.settings.topic_prefix)
    snapshot = table.newest_with("watermark")
    if snapshot is None:
        if table.snapshots and case.space.rows(f"select 1 from {table.scan()} limit 1"):
            case.report.problem("silver", table.name, "all", "no watermark", "no snapshot says what it covers", count=1)
        return
    offsets = json.loads(snapshot.properties["watermark"]).get(topic, {})
    for part, following in offsets.items():
        case.space.run("insert into watermarks values ($kind, $part, $next)", _mark(source.kind, part, following))


def _mark(kind: str, part: str, following: int) -> dict[str, object]:
    return {"kind": kind, "part": int(part), "next": int(following)}


def _items(source: Source) -> str:
    """Items with the columns of the silver table that follow from others."""
    extra = {
        "trades": ", exact_times(price, size) as notional",
        "quotes": ", case when sequence is null then event_ts end as moment",
        "asset_prices": ", received_at as polled_at",
        "candles": "",
    }[source.kind]
    return f"(select *{extra} from items_{source.kind})"


def _expected(case: Case, source: Source) -> None:
    """`expected_<kind>`: the first item of each key in scope; other content under a known key is to be refused.

    Beyond the watermark an hour may have been closed already: its rows are judged, and none is asked for.
    """
    kind, keys = source.kind, ", ".join(source.key)
    content = "struct_pack(" + ", ".join(f"c{number} := {one}" for number, one in enumerate(source.content)) + ")"
    in_scope = "true" if case.cut_us is None else f"item.ingested_at <= {case.cut_us}"
    there = f"from silver_{kind} r where {' and '.join(f'r.{name} = item.{name}' for name in _PLACE)}"
    in_scope += f" or item.position < coalesce(mark.next, 0) or exists ({there})"
    case.space.table(
        f"ranked_{kind}",
        f"""
        select item.*, {content} as content,
          first_value({content}) over first as first_content, row_number() over first as rank
        from {_items(source)} as item left join watermarks as mark on mark.of_table = '{kind}' and mark.part = item.part
        where {in_scope}
        window first as (partition by {keys} order by item.ingested_at, item.part, item.position, item.item_index)
        """,
    )
    place = ", ".join(_PLACE)
    case.space.table(f"expected_{kind}", f"select * exclude (rank) from ranked_{kind} where rank = 1")
    case.space.run(
        f"insert into refusals select {place}, '{kind}' from ranked_{kind} "
        "where rank > 1 and content is distinct from first_content"
    )
    if kind == "trades":
        # the millisecond a time falls into may be cut or rounded: closer than one, either answer will do
        places = ", ".join(f"r.{name}" for name in _PLACE)
        case.space.run(
            f"insert into either_way select {places} from ranked_trades r "
            "join expected_trades e using (venue, product_id, trade_id) where r.rank > 1 and r.price = e.price "
            "and r.size = e.size and r.taker_side = e.taker_side and abs(r.event_ts - e.event_ts) < 1000"
        )


def _compare(case: Case, source: Source) -> None:
    space, kind = case.space, source.kind
    table = case.tables[f"silver.{kind}"]
    # what bronze lost is bronze's fault, and so are the keys that bronze has wrong
    space.table(
        f"judged_{kind}",
        f"""
        select * from silver_{kind} as row where not exists (
          from holes_{source.topic.bronze} as hole
          where hole.part = row.part and row.position between hole.first and hole.last)
        """,
    )
    key = ", ".join(source.key)
    matches = " and ".join(f"b.{name} is not distinct from x.{name}" for name in source.key)
    blamed = f"blamed_{kind}" if kind in _TOLD else None
    skip = f"where not exists (from {blamed} as b where {matches})" if blamed else ""
    if case.since_us is not None:
        older = f"(select {key} from silver_{kind} where not in_scope)"
        skip += f" {'and' if skip else 'where'} not exists (from {older} as b where {matches})"
    # a key whose row came from a record that bronze lost cannot be judged from what bronze still has
    lost = f"(select {key} from silver_{kind} anti join judged_{kind} using ({', '.join(_PLACE)}))"
    skip += f" {'and' if skip else 'where'} not exists (from {lost} as b where {matches})"
    subject = Subject(
        "silver", table.name, source.key, (*source.values, "topic", "part", "position", "item_index"), source.product
    )
    faults = compare(
        space,
        case.report,
        subject,
        f"(select * from expected_{kind} as x {skip})",
        f"(select * from judged_{kind} as x {skip})",
    )
    if blamed:
        space.run(f"insert into {blamed} select {key} from {faults}")
    reason = None
    may_be_empty = case.at_rest or case.since_us is not None or kind == "candles"
    if may_be_empty and not space.rows(f"select 1 from items_{kind} limit 1"):
        reason = "bronze holds no such item in scope"
    case.nothing_compared("silver", table.name, kind, reason=reason)


def _load(case: Case, source: Source, table: LakeTable) -> None:
    columns = [
        f"epoch_us({name}) as {name}" if name in source.times else name
        for name in dict.fromkeys((*source.key, *source.values))
        if name != "moment"
    ]
    moment = ", case when sequence is null then epoch_us(event_ts) end as moment" if source.kind == "quotes" else ""
    rows = (
        f'select {", ".join(columns)}{moment}, topic, "partition" as part, "offset" as position, item_index '
        f"from {table.scan()}"
    )
    if case.since_us is None:
        case.space.table(f"silver_{source.kind}", f"select *, true as in_scope from ({rows})")
        return
    keys = ", ".join(source.key)
    matches = " and ".join(f"i.{name} is not distinct from r.{name}" for name in source.key)
    case.space.table(
        f"silver_{source.kind}",
        f"""
        with lowest as (select part, min(position) as low from messages_{source.topic.bronze} group by part)
        select r.*, coalesce(r.position >= lowest.low, false) as in_scope
        from ({rows}) as r left join lowest using (part)
        where r.position >= lowest.low or exists (from (select {keys} from {_items(source)}) as i where {matches})
        """,
    )


def _quarantine(case: Case) -> None:
    """silver.rejected holds exactly the items that cannot be rows, and the messages that gave none."""
    space, table = case.space, case.tables["silver.rejected"]
    place = ", ".join(_PLACE)
    space.run(f"insert into refusals select {place}, kind from items_refused")
    space.table(
        "quarantined",
        f"""
        select topic, "partition" as part, "offset" as position, item_index,
          split_part(source_table, '.', 2) as of_table from {table.scan()}
        """,
    )
    space.table(
        "lowest",
        " union all ".join(
            f"select '{one.kind}' as of_table, part, min(position) as low "
            f"from messages_{one.topic.bronze} group by part"
            for one in SOURCES
        ),
    )
    # rejected rows are written before the commit that moves the watermark, so those beyond it are no fault
    scope = (
        "join watermarks as mark using (of_table, part) join lowest using (of_table, part) "
        "where x.position < mark.next and x.position >= lowest.low "
        f"and not exists (from either_way as e where {' and '.join(f'e.{name} = x.{name}' for name in _PLACE)})"
    )
    holes = " union all ".join(f"select '{s.kind}' as of_table, * from holes_{s.topic.bronze}" for s in SOURCES)
    space.table("all_holes", holes)
    unheard = (
        "and not exists (from all_holes h where h.of_table = x.of_table and h.part = x.part "
        "and x.position between h.first and h.last)"
    )
    before = len(case.report.comparisons)
    compare(
        space,
        case.report,
        Subject("silver", "silver.rejected", ("of_table", *_PLACE), (), "of_table"),
        f"(select x.* from refusals as x {scope})",
        f"(select x.* from quarantined as x {scope} {unheard})",
    )
    if len(case.report.comparisons) == before:
        case.report.comparisons.append(Comparison("silver", "silver.rejected", "all", 0))


def _accounting(case: Case, source: Source) -> None:
    """Every commit's account balances and goes on where the one before it ended; no row is unaccounted for.

    An account that begins lower than its forerunner ended is that of a table that was rebuilt; rows lost by hand and
    inserted again are accounted for twice. Both are allowed: what is missing shows in the rows.
    """
    name, table = f"silver.{source.kind}", case.tables[f"silver.{source.kind}"]
    rows = case.warehouse.rows(
        "select snapshot_id, messages, ignored + parsed + unparseable, items, accepted + duplicate + rejected, "
        "accepted - already_here, first_offsets, next_offsets from ops.silver_accounting "
        "where table_name = %s order by committed_at, snapshot_id",
        (name,),
    )
    faults = []
    reached: dict[tuple[str, str], int] = {}
    for snapshot_id, messages, told, items, placed, _, first, following in rows:
        begins, ends = _flat(first), _flat(following)
        covered = sum(offset - begins.get(key, 0) for key, offset in ends.items())
        for what, one, other in (
            ("messages accounted for", told, messages),
            ("items accounted for", placed, items),
            ("messages between its offsets", covered, messages),
        ):
            if one != other:
                counted = items if what.startswith("items") else messages
                faults.append(f"snapshot {snapshot_id}: {one} {what}, {counted} read")
        for (topic, part), offset in begins.items():
            if offset > reached.get((topic, part), 0):
                faults.append(f"snapshot {snapshot_id}: {topic} {part} begins at {offset}, which nothing led up to")
        reached |= ends
    if rows and table.has(rows[-1][0]):
        there = case.space.rows(f"select count(*) from {table.scan(rows[-1][0])}")[0][0]
        added = sum(row[5] for row in rows)
        if there > added:
            faults.append(f"{there} rows in the table at snapshot {rows[-1][0]}, {added} accounted for")
    if faults:
        case.report.problem("silver", name, "ops.silver_accounting", "accounting", *faults)


def _flat(text: str) -> dict[tuple[str, str], int]:
    return {(topic, part): int(offset) for topic, parts in json.loads(text).items() for part, offset in parts.items()}
