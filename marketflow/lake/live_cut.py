"""Messages of trades and quotes to rows of the tails, inside Spark's Python workers.

Of an hour of trades that waited, 501 of a product can matter to its newest row: a worker parses everything and hands on
what may, so that the driver sees few rows however many messages a batch holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import cast

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from marketflow.contracts.columns import Column, Type
from marketflow.contracts.live import QUOTE_TAIL, TRADE_TAIL
from marketflow.contracts.records import Trade
from marketflow.contracts.sources import numbers_each_trade
from marketflow.features import frames
from marketflow.lake import conversion, live_query
from marketflow.lake.silver_sources import Source
from marketflow.warehouse import live_features

MESSAGE_COLUMNS = ("topic", "partition", "offset", "headers", "value")
# where a row stood in its topic: the first of a key wins
_PLACE = (
    Column("partition", Type.INTEGER, "of the message"),
    Column("offset", Type.LONG, "of the message"),
    Column("item_index", Type.INTEGER, "of the item in its message"),
)
_IS_TRADE = Column("is_trade", Type.BOOLEAN, "a row of the tail of trades, else of quotes")
# both tails side by side, columns of one name once; a row fills those of its own
COLUMNS = tuple(
    {column.name: column for column in (*_PLACE, _IS_TRADE, *TRADE_TAIL.columns, *QUOTE_TAIL.columns)}.values()
)
DDL = ", ".join(f"`{column.name}` {column.type.spark}" for column in COLUMNS)
_SCHEMA = pa.schema([(column.name, frames.ARROW_TYPES[column.type]) for column in COLUMNS])


def cutter(sources: Mapping[str, Source]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function that Spark runs in its workers; `sources` are those of silver by the topics' full names."""

    def cut(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for messages in batches:
            for topic in pc.unique(messages.column("topic")).to_pylist():
                of_topic = messages.filter(pc.equal(messages.column("topic"), topic))
                yield from _tail(sources[topic], of_topic)

    return cut


def tails(rows: pa.Table) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What the workers handed on as rows of live.trade_tail and live.quote_tail, in the order of their topics."""
    frame = pl.DataFrame(pl.from_arrow(rows)).sort("partition", "offset", "item_index")
    trades, quotes = frame.filter("is_trade"), frame.filter(~pl.col("is_trade"))
    return trades.select(TRADE_TAIL.column_names), quotes.select(QUOTE_TAIL.column_names)


def _tail(source: Source, messages: pa.RecordBatch) -> list[pa.RecordBatch]:
    """Of one topic's messages the rows that may be in a tail."""
    found = [
        item
        for item in live_query.items(
            source, messages.column("headers").to_pylist(), messages.column("value").to_pylist()
        )
        if numbers_each_trade(item[3].venue)
    ]
    if not found:
        return []
    positions, headers, indexes, records = zip(*found, strict=True)
    columns = conversion.record_columns(source, records)
    columns |= {name: messages.column(name).take(pa.array(positions, pa.int64())) for name in ("partition", "offset")}
    columns |= {"item_index": indexes, "is_trade": [source.record is Trade] * len(records)}
    if source.record is Trade:
        columns["received_at"] = [int(one["received_at"]) for one in headers]
    else:
        columns["key_ts"] = [one.event_us if one.sequence is None else None for one in records]
    rows = pl.DataFrame(pl.from_arrow(conversion.batch(_SCHEMA, len(records), columns)))
    kept = live_features.newest(rows) if source.record is Trade else live_features.recent(rows)
    return cast("list[pa.RecordBatch]", kept.to_arrow().cast(_SCHEMA).to_batches())
