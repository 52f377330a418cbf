"""Messages with their facts, bronze written as the stream writes it, and what silver must hold by plain Python.

The oracle knows what was put into each message; it parses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fresh_tables
from pyspark.sql import SparkSession

from marketflow.contracts import bronze, silver
from marketflow.lake import readers
from marketflow.lake.session import table_name
from marketflow.settings import Settings
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect

TRADES, TICKER, PRICES, CANDLES = bronze.BRONZE_TABLES
TOPICS = {table: f"sim.crypto.{table.name.removesuffix('_raw')}.raw" for table in bronze.BRONZE_TABLES}
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MAKER = {"buy": "sell", "sell": "buy"}


@dataclass(frozen=True)
class Trade:
    """One trade as the market made it: the taker's side, exact numbers."""

    trade_id: int
    price: str = "100.5"
    size: str = "0.25"
    taker_side: str = "buy"
    event_at: datetime = NOON
    product_id: str = "BTC-USD"

    @property
    def key(self) -> tuple[Any, ...]:
        return "coinbase_exchange", self.product_id, self.trade_id

    @property
    def content(self) -> tuple[Any, ...]:
        milliseconds = self.event_at.replace(microsecond=self.event_at.microsecond // 1000 * 1000)
        return Decimal(self.price), Decimal(self.size), self.taker_side, milliseconds

    @property
    def fields(self) -> dict[str, Any]:
        """As a venue's JSON, whose side is the maker's."""
        time = self.event_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        side = MAKER[self.taker_side]
        return {"trade_id": self.trade_id, "side": side, "size": self.size, "price": self.price, "time": time}


@dataclass(frozen=True)
class Message:
    """A Kafka record to be, and what is in it: trades and reasons of refused items, or why there is none."""

    value: bytes
    facts: tuple[Trade | str, ...] = ()
    ignored: str | None = None
    unparseable: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


def match(trade: Trade) -> Message:
    body = {"type": "match", "product_id": trade.product_id, "sequence": trade.trade_id * 10, **trade.fields}
    return Message(json.dumps(body).encode(), (trade,))


def page(trades: Sequence[Trade | tuple[dict[str, Any], str]], product_id: str = "BTC-USD") -> Message:
    """A REST page: trades, and bad items as (fields, reason)."""
    fields = [item.fields if isinstance(item, Trade) else item[0] for item in trades]
    facts = tuple(item if isinstance(item, Trade) else item[1] for item in trades)
    headers = {"channel": "trades", "product_id": product_id, "http_status": "200", "origin": "heal"}
    return Message(json.dumps(fields).encode(), facts, headers=headers)


def heartbeat() -> Message:
    body = {
        "type": "heartbeat",
        "product_id": "BTC-USD",
        "last_trade_id": 1,
        "sequence": 1,
        "time": "2026-03-10T12:00:00Z",
    }
    return Message(json.dumps(body).encode(), ignored="heartbeat")


def garbage() -> Message:
    return Message(b'{"type":"match","trade', unparseable="malformed")


@dataclass(frozen=True)
class Record:
    """A message where Kafka put it."""

    partition: int
    offset: int
    ingested_at: datetime
    message: Message

    def row(self, table: Any, received_at: datetime) -> tuple[Any, ...]:
        headers = {
            "schema_version": "1",
            "venue": "coinbase_exchange",
            "channel": "matches",
            "received_at": str(round(received_at.timestamp() * 1e6)),
            "connection_id": "c1",
            "origin": "simulated",
            **self.message.headers,
        }
        known = {
            "topic": TOPICS[table],
            "partition": self.partition,
            "offset": self.offset,
            "value": self.message.value,
            "kafka_timestamp": received_at,
            "ingested_at": self.ingested_at,
            "venue": headers.get("venue"),
            "channel": headers.get("channel"),
            "received_at": received_at,
            "headers": json.dumps({name: text for name, text in headers.items() if text != ""}),
        }
        return tuple(known.get(name) for name in table.column_names)


class Bronze:
    """One bronze table as the stream fills it: each call of `commit` is one batch with its own time."""

    def __init__(self, spark: SparkSession, settings: Settings, table: Any = TRADES) -> None:
        self.spark, self.settings, self.table = spark, settings, table
        self.records: list[Record] = []

    def commit(self, batches: dict[int, Sequence[Message]], ingested_at: datetime) -> list[Record]:
        """Append one batch: partition → messages, at the partition's next offsets."""
        added = []
        for partition, messages in batches.items():
            start = 1 + max((r.offset for r in self.records if r.partition == partition), default=-1)
            added += [Record(partition, start + n, ingested_at, message) for n, message in enumerate(messages)]
        self.records += added
        self.write(added)
        return added

    def write(self, records: Iterable[Record]) -> None:
        """Append these records as they are, also where a test wants them wrong."""
        rows = [record.row(self.table, record.ingested_at - timedelta(seconds=5)) for record in records]
        frame = self.spark.createDataFrame(rows, self.table.spark_schema).coalesce(1)
        frame.writeTo(table_name(self.settings, self.table)).append()

    def complete_through(self, when: datetime) -> None:
        """Say that the stream stood at the topic's end at this moment."""
        with connect(self.settings) as connection:
            freshness.mark(connection, self.table.qualified, when)

    @property
    def topic(self) -> str:
        return TOPICS[self.table]


def fresh(spark: SparkSession, settings: Settings) -> None:
    """Empty tables without history, in the lake and in Postgres."""
    fresh_tables.empty(spark, settings, (*bronze.BRONZE_TABLES, *silver.SILVER_TABLES))
    with connect(settings) as connection:
        connection.execute("delete from ops.silver_accounting")
        connection.execute("delete from ops.layer_mark")


@dataclass
class Truth:
    """What silver must hold of some records of trades."""

    trades: dict[tuple[Any, ...], tuple[Any, ...]] = field(default_factory=dict)
    rejected: dict[tuple[Any, ...], str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def truth(topic: str, records: Iterable[Record]) -> Truth:
    """The obvious slow way: one item after the other, in order of arrival; the first of a key wins."""
    result = Truth()
    names = ("messages", "ignored", "parsed", "unparseable", "items", "accepted", "duplicate", "rejected")
    count = dict.fromkeys(names, 0)
    contents: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for record in sorted(records, key=lambda r: (r.ingested_at, r.partition, r.offset)):
        count["messages"] += 1
        message = record.message
        if message.ignored is not None:
            count["ignored"] += 1
            continue
        count["unparseable" if message.unparseable else "parsed"] += 1
        for index, fact in enumerate(message.facts or (message.unparseable,)):
            count["items"] += 1
            lineage = (topic, record.partition, record.offset, -1 if message.unparseable else index)
            if not isinstance(fact, Trade):
                result.rejected[lineage] = str(fact)
                count["rejected"] += 1
            elif fact.key not in contents:
                contents[fact.key] = fact.content
                count["accepted"] += 1
                result.trades[fact.key] = (
                    Decimal(fact.price),
                    Decimal(fact.size),
                    Decimal(fact.price) * Decimal(fact.size),
                    fact.taker_side,
                    fact.event_at,
                    *lineage,
                )
            elif contents[fact.key] == fact.content:
                count["duplicate"] += 1
            else:
                result.rejected[lineage] = "conflicting_duplicate"
                count["rejected"] += 1
    result.counts = count
    return result


_STORED = ("price", "size", "notional", "taker_side", "event_ts", "topic", "partition", "offset", "item_index")


def stored_trades(settings: Settings) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """(key, values) of every row of silver.trades, sorted; a doubled row is there twice. Read without Spark."""
    rows = readers.load(settings, "silver.trades").to_pylist()
    pairs = [(tuple(row[name] for name in silver.TRADES.key), tuple(row[name] for name in _STORED)) for row in rows]
    return sorted(pairs)


def stored_rejected(settings: Settings) -> list[tuple[tuple[Any, ...], str]]:
    """(lineage, reason) of every row of silver.rejected, sorted."""
    rows = readers.load(settings, "silver.rejected").to_pylist()
    return sorted((tuple(row[name] for name in silver.REJECTED.key), row["reason"]) for row in rows)


def accounted(settings: Settings, table: str = "silver.trades") -> dict[str, int]:
    """The sums of ops.silver_accounting."""
    names = ("messages", "ignored", "parsed", "unparseable", "items", "accepted", "duplicate", "rejected")
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in names)
    with connect(settings) as connection:
        row = connection.execute(f"select {sums} from ops.silver_accounting where table_name = %s", (table,)).fetchone()
    assert row is not None
    return dict(zip(names, map(int, row), strict=True))


def assert_silver_is(settings: Settings, expected: Truth) -> None:
    """Rows, rejected rows and sums of the accounting are exactly the truth's."""
    assert stored_trades(settings) == sorted(expected.trades.items())
    assert stored_rejected(settings) == sorted(expected.rejected.items())
    assert accounted(settings) == expected.counts
