"""Bronze: every Kafka record once and without a hole, and every fact of the truth in some record, as it was.

Leaves for the layers below: `items_trades`, `items_quotes`, `items_asset_prices`, `items_candles` and `items_refused`
(what the bytes say), `messages_<table>` (every record), `holes_<table>` (offsets that are missing) and `blamed_trades`
and `blamed_asset_prices` (keys that are wrong here already, so that one fault is named once).
"""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.topics import CANDLES, PRICES, TICKER, TRADES, Topic
from marketflow.verify import wire
from marketflow.verify.case import Case
from marketflow.verify.compare import Subject, compare
from marketflow.verify.cut import TRANSPORT
from marketflow.verify.report import EXAMPLES, Comparison
from marketflow.verify.sources import PartitionOffsets, kafka_offsets, statement, truth_lines
from marketflow.verify.wire_items import Message

KIND_OF = {TRADES.name: "trades", TICKER.name: "quotes", PRICES.name: "asset_prices", CANDLES.name: "candles"}
TRANSPORT_US = int(TRANSPORT.total_seconds() * 1_000_000)
QUIET_START_US = 60_000_000
BATCH = 10_000
KEYS = {"trades": "venue, product_id, trade_id", "asset_prices": "source, asset_id, vs_currency, last_updated"}
MONEY = pa.decimal128(38, 18)
_WHERE = {"part": pa.int32(), "position": pa.int64(), "item_index": pa.int32()}
_ARRIVED = {"topic": pa.string(), "received_at": pa.int64(), "ingested_at": pa.int64(), "origin": pa.string()}
COLUMNS: dict[str, dict[str, Any]] = {
    "trades": {
        **dict.fromkeys(("venue", "product_id", "taker_side", "side_raw"), pa.string()),
        **dict.fromkeys(("trade_id", "event_ts", "sequence"), pa.int64()),
        **dict.fromkeys(("price", "size"), MONEY),
        "float_born": pa.bool_(),
    },
    "quotes": {
        **dict.fromkeys(("venue", "product_id"), pa.string()),
        **dict.fromkeys(("sequence", "event_ts", "last_trade_id"), pa.int64()),
        **dict.fromkeys(("best_bid", "best_bid_size", "best_ask", "best_ask_size", "last_price"), MONEY),
        **dict.fromkeys(("open_24h", "high_24h", "low_24h", "volume_24h"), MONEY),
    },
    "asset_prices": {
        **dict.fromkeys(("source", "asset_id", "vs_currency", "symbol", "name", "poll_id"), pa.string()),
        **dict.fromkeys(("last_updated", "poll_started_at"), pa.int64()),
        "market_cap_rank": pa.int32(),
        **dict.fromkeys(("price", "market_cap", "fully_diluted_valuation", "volume_24h", "high_24h"), MONEY),
        **dict.fromkeys(("low_24h", "change_24h_pct", "circulating_supply", "total_supply", "max_supply"), MONEY),
    },
    "candles": {
        **dict.fromkeys(("venue", "product_id", "interval"), pa.string()),
        **dict.fromkeys(("open_ts", "trade_count"), pa.int64()),
        **dict.fromkeys(("open", "high", "low", "close", "volume", "notional"), MONEY),
    },
    "refused": {"kind": pa.string(), "why": pa.string()},
}
TRUTH_TRADES = {
    **dict.fromkeys(("venue", "product_id", "taker_side", "price", "size"), pa.string()),
    **dict.fromkeys(("trade_id", "event_us", "sequence", "market_us"), pa.int64()),
}
TRUTH_PRICES = {
    **dict.fromkeys(("source", "asset_id", "vs_currency", "price", "market_cap"), pa.string()),
    "last_updated_us": pa.int64(),
}


def schema(kind: str) -> pa.Schema:
    """Columns of items_<kind>: where it was, when it came, what it says."""
    return pa.schema([pa.field(name, of) for name, of in (_WHERE | _ARRIVED | COLUMNS[kind]).items()])


def check(case: Case) -> None:
    """Read the four topics' bronze tables, check their offsets, and hold their items against the truth."""
    for kind in COLUMNS:
        case.space.run(f"drop table if exists items_{kind}")
        case.space.connection.register("empty", schema(kind).empty_table())
        case.space.table(f"items_{kind}", "select * from empty")
        case.space.connection.unregister("empty")
    for topic in (TRADES, TICKER, PRICES, CANDLES):
        _load(case, topic)
        if "bronze" in case.layers:
            _offsets(case, topic)
        _read(case, topic)
    _refuse_ids_that_went_back(case)
    for kind, key in KEYS.items():
        case.space.table(f"blamed_{kind}", f"select {key} from items_{kind} limit 0")
    if "bronze" in case.layers:
        _trades_against_truth(case)
        _prices_against_truth(case)


def _load(case: Case, topic: Topic) -> None:
    """`messages_<table>`: each record once; `raw` is a view on the one being read."""
    name = f"messages_{topic.bronze}"
    case.space.table(
        name,
        f"""
        select topic, "partition" as part, "offset" as position, venue, channel, epoch_us(received_at) as received_at,
          origin, http_status, product_id, vs_currency, poll_id, epoch_us(poll_started_at) as poll_started_at, oversize,
          epoch_us(ingested_at) as ingested_at, value,
          headers ->> '$.least_trade_id' as least_trade_id,
          coalesce("interval", headers ->> '$.interval') as "interval",
          row_number() over (partition by topic, part, position) as copy
        from {case.tables[f"bronze.{topic.bronze}"].scan()} where {case.since("ingested_at")}
        """,
    )
    case.space.table(
        f"copies_{topic.bronze}",
        f"select part, position, max(copy) as copies from {name} group by all having max(copy) > 1",
    )
    case.space.run(f"delete from {name} where copy > 1")
    case.space.run(f"create or replace temp view raw as select * from {name}")


def _offsets(case: Case, topic: Topic) -> None:
    """Each offset once, without a hole from the first that must be there to the last that must be."""
    space, table = case.space, f"bronze.{topic.bronze}"
    full_name = topic.full_name(case.settings.topic_prefix)
    kafka = kafka_offsets(case.settings, full_name, topic.partitions, case.cut_us)
    space.table(
        f"holes_{topic.bronze}",
        'select part, position + 1 as first, next - 1 as last from (select part, "position", '
        f'lead("position") over (partition by part order by "position") as next from messages_{topic.bronze}) '
        "where next > position + 1",
    )
    held = {
        part: (count, low, high)
        for part, count, low, high in space.rows(
            f"select part, count(*), min(position), max(position) from messages_{topic.bronze} group by part"
        )
    }
    doubled = dict(space.rows(f"select part, count(*) from copies_{topic.bronze} group by part"))
    for part, offsets in kafka.items():
        count, low, high = held.get(part, (0, None, None))
        _edges(case, topic, part, offsets, low, high)
        holes = space.rows(f"select first, last from holes_{topic.bronze} where part = {part} order by first")
        missing = sum(last - first + 1 for first, last in holes)
        product = f"partition {part}"
        if count or missing:
            case.report.comparisons.append(
                Comparison("bronze", table, product, count, missing, duplicate=doubled.get(part, 0))
            )
        if missing:
            named = [f"offset {first}" if first == last else f"offsets {first} to {last}" for first, last in holes]
            case.report.problem("bronze", table, product, "missing", *named, count=missing)
        if part in doubled:
            copies = space.rows(
                f"select position, copies from copies_{topic.bronze} where part = {part} order by 1 limit {EXAMPLES}"
            )
            named = [f"offset {position} ({number} copies)" for position, number in copies]
            case.report.problem("bronze", table, product, "duplicate", *named, count=doubled[part])
        behind = offsets.end - (high + 1 if high is not None else offsets.low)
        if behind > 0 and (high is not None or case.since_us is None):
            case.report.notes.append(f"{table} partition {part} is {behind} records behind Kafka's end (informational)")
    if not any(offsets.end for offsets in kafka.values()):
        # nobody has to ask for candles
        is_fine = case.at_rest or topic is CANDLES
        reason = f"topic {full_name} is empty" if is_fine else None
        case.nothing_compared("bronze", table, KIND_OF[topic.name], reason=reason)
    else:
        later = all(offsets.at_cut <= offsets.low for offsets in kafka.values())
        reason = "its first record came after the cut" if later else "no record is in scope" if case.since_us else None
        case.nothing_compared("bronze", table, KIND_OF[topic.name], reason=reason)


def _edges(case: Case, topic: Topic, part: int, offsets: PartitionOffsets, low: int | None, high: int | None) -> None:
    """Holes before the first and after the last record that bronze has, where Kafka proves that there are some."""
    holes = f"holes_{topic.bronze}"
    first = low if low is not None else offsets.at_cut
    if case.since_us is None and first > 0:
        if offsets.low < first:
            case.space.run(f"insert into {holes} values ({part}, {offsets.low}, {first - 1})")
        if offsets.low > 0:
            case.report.notes.append(
                f"bronze.{topic.bronze} partition {part}: Kafka no longer has the offsets below {offsets.low}"
            )
    if high is not None and offsets.at_cut > high + 1:
        case.space.run(f"insert into {holes} values ({part}, {high + 1}, {offsets.at_cut - 1})")


def _read(case: Case, topic: Topic) -> None:
    """Items of every message: the plain ones by SQL, the rest one by one."""
    space, kind = case.space, KIND_OF[topic.name]
    products = frozenset({*case.products, *PRODUCTS})
    space.table("wire", statement("coinbase_read"), {"products": sorted(products)})
    own = {"trades": "trade", "quotes": "quote"}.get(kind)
    if own is not None:
        columns = ", ".join(
            f"wire.{name}"
            for name in COLUMNS[kind]
            if name not in ("venue", "last_price", "last_trade_id", "float_born")
        )
        aliases = ", wire.price as last_price, wire.trade_id as last_trade_id" if kind == "quotes" else ""
        space.run(
            f"insert into items_{kind} by name select raw.part, raw.position, 0 as item_index, raw.topic, "
            f"raw.received_at, raw.ingested_at, raw.origin, raw.venue, {columns}{aliases} "
            f"from wire join raw on raw.part = wire.part and raw.position = wire.position where kind = '{own}'"
        )
    result = space.run(
        "select raw.topic, raw.part, raw.position, raw.ingested_at, raw.origin, value, venue, channel, "
        "raw.received_at, http_status, raw.product_id, vs_currency, poll_id, poll_started_at, oversize, "
        'raw."interval" '
        "from raw join wire on raw.part = wire.part and raw.position = wire.position "
        f"where kind not in ('nothing', '{own}')"
    )
    pending = []
    while batch := result.fetchmany(BATCH):
        pending += [found for row in batch for found in _items_of(row, kind, products)]
        # the result must be read to its end before the connection does anything else
    for name, group in groupby(sorted(pending, key=lambda pair: pair[0]), key=lambda pair: pair[0]):
        space.insert(f"items_{name}", pa.Table.from_pylist([row for _, row in group], schema=schema(name)))


def _items_of(row: tuple[Any, ...], kind: str, products: frozenset[str]) -> list[tuple[str, dict[str, Any]]]:
    topic, part, position, ingested_at, origin, *rest = row
    message = Message(*rest)
    found = []
    for item in wire.read(message, products):
        # an item of another kind than the topic's own has no table and is quarantined
        name = item.kind if item.kind == kind else "refused"
        fields = {**item.fields, "kind": kind, "why": item.why or f"{item.kind} on the topic of {kind}"}
        if name == "asset_prices":
            fields |= {"poll_id": message.poll_id, "poll_started_at": message.poll_started_at}
        place = {"topic": topic, "part": part, "position": position, "item_index": item.index}
        arrived = {"received_at": message.received_at, "ingested_at": ingested_at, "origin": origin}
        found.append((name, {**fields, **place, **arrived}))
    return found


def _refuse_ids_that_went_back(case: Case) -> None:
    """A feed says with its message below which id no trade of a product can be true: those belong into quarantine."""
    case.space.table(
        "went_back",
        "select item.* from items_trades as item join messages_trades_raw as message using (topic, part, position) "
        "where split_part(message.least_trade_id, '|', 1) = item.product_id "
        "and item.trade_id < try_cast(split_part(message.least_trade_id, '|', 2) as bigint)",
    )
    case.space.run(
        "insert into items_refused by name select part, position, item_index, topic, received_at, ingested_at, origin, "
        "'trades' as kind, 'its id went back' as why from went_back"
    )
    case.space.run(
        "delete from items_trades as item using went_back where item.topic = went_back.topic "
        "and item.part = went_back.part and item.position = went_back.position "
        "and item.item_index = went_back.item_index"
    )


def _truth(case: Case, name: str) -> Path | None:
    """The truth's file, or None, said aloud, where this dataset has none."""
    path = case.truth_folder / f"{name}.ndjson" if case.truth_folder else None
    if path is not None and path.exists():
        return path
    if case.settings.dataset == "sim" and case.truth_folder == case.settings.home / "truth":
        detail = f"there is no {path}, so nothing is held against what the market did"
        case.report.problem("bronze", f"bronze.{name}_raw", "all", "no truth", detail, count=1)
        return None
    why = f"there is no {path}" if path else f"dataset {case.settings.dataset} has none"
    case.report.notes.append(f"bronze.{name}_raw is not held against a truth: {why}")
    return None


def _trades_against_truth(case: Case) -> None:
    """Every trade of the market is in some message that says of it what the market did."""
    space, path = case.space, _truth(case, "trades")
    if path is None:
        return
    end = case.cut_us - TRANSPORT_US if case.cut_us is not None else None
    _heard(case, end)
    space.connection.register("lines", truth_lines(path, TRUTH_TRADES))
    space.table(
        "truth_trades",
        "select venue, product_id, trade_id, price::decimal(38,18) as price, size::decimal(38,18) as size, "
        "taker_side, event_us as event_ts, sequence, market_us from lines",
    )
    # one book, two doors: the trades of Coinbase Exchange are those of Advanced Trade, by the same ids
    if space.rows(
        "select 1 from heard where venue = 'coinbase_advanced' "
        "union all select 1 from items_trades where venue = 'coinbase_advanced' limit 1"
    ):
        space.run(
            "insert into truth_trades by name select * replace ('coinbase_advanced' as venue, null as sequence) "
            "from truth_trades where venue = 'coinbase_exchange'"
        )
    space.connection.unregister("lines")
    _collected(case)
    space.table("truth_scope", statement("truth_scope"), _scope(case))
    space.table(
        "known_gaps_trades",
        "select venue, product_id, trade_id from truth_scope where asked and known_gap and not received",
    )
    space.table("gap_counts", "select product_id as product, count(*) as gaps from known_gaps_trades group by all")
    subject = Subject(
        layer="bronze",
        table="bronze.trades_raw",
        key=("venue", "product_id", "trade_id"),
        exact=("price", "size", "taker_side", "event_ts", "sequence"),
        product="product_id",
    )
    space.table("told_trades", statement("told_trades"))
    faults = compare(
        space,
        case.report,
        subject,
        "(select * from truth_scope where received or (asked and not known_gap))",
        "told_trades",
        known_gaps="gap_counts",
    )
    space.run(f"insert into blamed_trades select venue, product_id, trade_id from {faults}")
    before = space.rows("select count(*) from truth_scope where not received and before_start")[0][0]
    if before and case.since_us is None:
        case.report.notes.append(
            f"{before} trades of the truth were made before collection began and are not asked for"
        )
    silent = (
        "the market made no trade in scope" if not space.rows("select 1 from truth_scope where asked limit 1") else None
    )
    case.nothing_compared("bronze", "bronze.trades_raw", "trades", reason=silent)


def _collected(case: Case) -> None:
    """`collected`: the first id the platform ever heard of each product; older trades were made before it listened.

    What was asked for afterwards, of days before, does not make it have listened then.
    """
    ids = "select venue, product_id, trade_id, origin from items_trades"
    if case.since_us is not None:
        ids += f" union all select venue, product_id, trade_id, origin from {case.tables['silver.trades'].scan()}"
    case.space.table(
        "collected",
        f"select venue, product_id, min(trade_id) as first_id from ({ids}) where origin <> 'backfill' group by all",
    )


def _heard(case: Case, end: int | None) -> None:
    """`heard`: whose trades are asked for, and up to which of the market's times."""
    rows = []
    for venue, product_id, stop in case.heard:
        ends = [one for one in (end, None if stop is None else stop - TRANSPORT_US) if one is not None]
        rows.append({"venue": venue, "product_id": product_id, "end_us": min(ends, default=2**62)})
        if stop is not None:
            note = f"trades made since the feed of {venue} was stopped by hand are not asked for"
            if note not in case.report.notes:
                case.report.notes.append(note)
    columns = pa.schema([("venue", pa.string()), ("product_id", pa.string()), ("end_us", pa.int64())])
    case.space.connection.register("lines", pa.Table.from_pylist(rows, schema=columns))
    case.space.table("heard", "select * from lines")
    case.space.connection.unregister("lines")


def _scope(case: Case) -> dict[str, Any]:
    return {
        "start": case.since_us or 0,
        "cut": case.cut_us if case.cut_us is not None else 2**62,
        "quiet": QUIET_START_US,
    }


def _prices_against_truth(case: Case) -> None:
    """Every price on a page is one that the market made; which of them are polled is not up to the platform."""
    space, path = case.space, _truth(case, "prices")
    if path is None:
        return
    space.connection.register("lines", truth_lines(path, TRUTH_PRICES))
    space.table(
        "truth_prices",
        "select source, asset_id, vs_currency, last_updated_us as last_updated, price::decimal(38,18) as price, "
        "nullif(market_cap, '')::decimal(38,18) as market_cap from lines",
    )
    space.connection.unregister("lines")
    subject = Subject(
        layer="bronze",
        table="bronze.prices_raw",
        key=("source", "asset_id", "vs_currency", "last_updated"),
        exact=("price", "market_cap"),
        product="source || ' ' || vs_currency",
    )
    space.table("told_prices", statement("told_prices"))
    faults = compare(
        space,
        case.report,
        subject,
        "(select * from truth_prices semi join told_prices using (source, asset_id, vs_currency, last_updated))",
        "told_prices",
    )
    space.run(f"insert into blamed_asset_prices select {KEYS['asset_prices']} from {faults}")
