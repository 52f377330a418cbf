"""Parsed records as Arrow columns: one column at a time, no dictionary per row, decimals and times exact."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import pyarrow as pa

from marketflow.contracts.columns import Column, Type
from marketflow.contracts.silver import REJECTED
from marketflow.features.frames import ARROW_TYPES
from marketflow.lake.silver_sources import LINEAGE, Source

# columns of the parser's output that are no table's: what a row is, and the numbers of a tally
KIND = Column("kind", Type.STRING, "item, rejected, or the name of a tally")
TALLY = (
    Column("tally_name", Type.STRING, "what is counted", nullable=True),
    Column("tally_count", Type.LONG, "how many", nullable=True),
    Column("tally_first", Type.LONG, "lowest offset or id", nullable=True),
    Column("tally_last", Type.LONG, "highest offset or id", nullable=True),
)
INGESTED_AT = Column("ingested_at", Type.TIMESTAMP, "bronze's", nullable=True)
_REJECTED_ALONE = ("venue", "channel", "reason", "detail", "value", "received_at")


def output_columns(source: Source) -> tuple[Column, ...]:
    """Columns of the parser's output: the silver table's, what silver.rejected has beside, and the tallies'."""
    own = source.table.columns
    names = set(source.table.column_names)
    beside = tuple(REJECTED.column(name) for name in _REJECTED_ALONE if name not in names)
    return (KIND, *own, *beside, INGESTED_AT, *TALLY)


def rejected_columns(source: Source) -> tuple[Column, ...]:
    """Those of a rejected item, in that order; some are the silver table's too."""
    names = {*_REJECTED_ALONE, *LINEAGE, INGESTED_AT.name}
    return tuple(column for column in output_columns(source) if column.name in names)


def output_schema(source: Source) -> pa.Schema:
    """The same as an Arrow schema."""
    return pa.schema([(column.name, ARROW_TYPES[column.type]) for column in output_columns(source)])


def batch(schema: pa.Schema, rows: int, columns: dict[str, Any]) -> pa.RecordBatch:
    """A batch of `rows` rows: the columns given (lists or arrays), all others null."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(rows, field.type))
        elif isinstance(values, pa.Array):
            arrays.append(values)
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def lineage(messages: pa.RecordBatch, positions: Sequence[int]) -> dict[str, pa.Array]:
    """Topic, partition, offset and ingested_at of the messages at these positions of the batch."""
    where = pa.array(positions, pa.int64())
    return {name: messages.column(name).take(where) for name in ("topic", "partition", "offset", "ingested_at")}


def record_columns(source: Source, records: Sequence[Any]) -> dict[str, Any]:
    """The records' attributes as columns, each in one pass."""
    values = zip(*map(attrgetter(*source.fields.values()), records), strict=True)
    return dict(zip(source.fields, values, strict=True))
