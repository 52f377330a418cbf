"""The four sources of silver: which topic feeds which table, and what makes two of its rows the same fact."""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from marketflow.contracts import bronze, records, silver, topics
from marketflow.contracts.columns import Table
from marketflow.contracts.topics import Topic
from marketflow.errors import ConfigurationError

LINEAGE = ("topic", "partition", "offset", "item_index")


@dataclass(frozen=True, slots=True)
class Source:
    """One topic's way into one silver table.

    `fields` maps a column to the attribute of `record` it comes from; `headers` maps a column to the header it comes
    from. A key lies in a `group` (its venue and product) at an `id`, an integer; `id_in_range` is SQL with {low} and
    {high} that Iceberg can prune by, `id_sql` computes the id of a stored row. `key` and `content` are SQL: rows of
    equal key are one fact, and equal content makes the later one a mere duplicate. `touched_by` names hours' owner.
    """

    topic: Topic
    table: Table
    record: type[msgspec.Struct]
    fields: dict[str, str]
    headers: dict[str, str]
    group: tuple[str, ...]
    id_sql: str
    id_in_range: str
    key: tuple[str, ...]
    content: dict[str, str]
    touched_by: str
    # a poll's page holds hundreds of items, so a batch of the same size holds fewer messages
    most_messages: int

    @property
    def bronze(self) -> Table:
        """The raw table that the topic lands in."""
        return next(table for table in bronze.BRONZE_TABLES if table.name == self.topic.bronze)

    @property
    def event_column(self) -> str:
        """The column whose hour a row belongs to."""
        assert self.table.hour_column is not None
        return self.table.hour_column

    @property
    def file_order(self) -> tuple[str, ...]:
        """SQL of the order of rows in the table's files: its partitions, a day as a date, and then its own order."""
        parts = (re.sub(r"^days\((\w+)\)$", r"to_date(\1)", part) for part in self.table.partitioning)
        return *(part if "(" in part else f"`{part}`" for part in parts), *self.table.sort_order

    @property
    def event_attribute(self) -> str:
        """The record's attribute behind it, in µs."""
        return self.fields[self.event_column]


def _fields(table: Table, headers: dict[str, str], renamed: dict[str, str]) -> dict[str, str]:
    taken = {*headers, *LINEAGE}
    return {name: renamed.get(name, name) for name in table.column_names if name not in taken}


def _plain(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_RECEIVED = {"received_at": "received_at", "origin": "origin"}
_POLLED = {
    "polled_at": "received_at",
    "poll_id": "poll_id",
    "poll_started_at": "poll_started_at",
    "origin": "origin",
}

TRADES = Source(
    topic=topics.TRADES,
    table=silver.TRADES,
    record=records.Trade,
    fields=_fields(silver.TRADES, _RECEIVED, {"event_ts": "event_us"}),
    headers=_RECEIVED,
    group=("venue", "product_id"),
    id_sql="trade_id",
    id_in_range="trade_id between {low} and {high}",
    key=("venue", "product_id", "trade_id"),
    # REST gives the time in fewer digits than the feed, so times are compared to the millisecond
    content={**_plain("price", "size", "taker_side"), "event_ts": "date_trunc('MILLISECOND', event_ts)"},
    touched_by="product_id",
    most_messages=1_000_000,
)

QUOTES = Source(
    topic=topics.TICKER,
    table=silver.QUOTES,
    record=records.Quote,
    fields=_fields(silver.QUOTES, _RECEIVED, {"event_ts": "event_us"}),
    headers=_RECEIVED,
    group=("venue", "product_id"),
    id_sql="coalesce(sequence, unix_micros(event_ts))",
    id_in_range="(sequence between {low} and {high} or (sequence is null and event_ts between "
    "timestamp_micros({low}) and timestamp_micros({high})))",
    key=("venue", "product_id", "sequence", "case when sequence is null then event_ts end"),
    content=_plain(
        *("event_ts", "best_bid", "best_bid_size", "best_ask", "best_ask_size", "last_price", "last_trade_id"),
        *("open_24h", "high_24h", "low_24h", "volume_24h"),
    ),
    touched_by="product_id",
    most_messages=1_000_000,
)

PRICES = Source(
    topic=topics.PRICES,
    table=silver.ASSET_PRICES,
    record=records.AssetPrice,
    fields=_fields(silver.ASSET_PRICES, _POLLED, {"last_updated": "last_updated_us"}),
    headers=_POLLED,
    group=("source", "vs_currency"),
    id_sql="unix_micros(last_updated)",
    id_in_range="last_updated between timestamp_micros({low}) and timestamp_micros({high})",
    key=silver.ASSET_PRICES.key,
    content=_plain(
        *("symbol", "name", "price", "market_cap", "market_cap_rank", "fully_diluted_valuation", "volume_24h"),
        *("high_24h", "low_24h", "change_24h_pct", "circulating_supply", "total_supply", "max_supply"),
    ),
    touched_by="source",
    most_messages=2_000,
)

CANDLES = Source(
    topic=topics.CANDLES,
    table=silver.CANDLES,
    record=records.Candle,
    fields=_fields(silver.CANDLES, _RECEIVED, {"open_ts": "open_us"}),
    headers=_RECEIVED,
    group=("venue", "product_id", "interval"),
    id_sql="unix_micros(open_ts)",
    id_in_range="open_ts between timestamp_micros({low}) and timestamp_micros({high})",
    # in SQL `interval` alone begins a literal
    key=("venue", "product_id", "`interval`", "open_ts"),
    content=_plain("open", "high", "low", "close", "volume"),
    touched_by="product_id",
    # a page of history holds up to 2,000 candles
    most_messages=500,
)

SOURCES: dict[str, Source] = {source.table.qualified: source for source in (TRADES, QUOTES, PRICES, CANDLES)}


def named(qualified: str) -> Source:
    """The source of `silver.trades`; a ConfigurationError with the known names where there is none."""
    try:
        return SOURCES[qualified]
    except KeyError:
        raise ConfigurationError(f"no silver source for {qualified!r}; known: {', '.join(SOURCES)}") from None
