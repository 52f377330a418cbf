"""Rows of any contract, and lake tables that hold them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from marketflow.contracts.columns import Column, Table, Type
from marketflow.features.frames import ARROW_TYPES
from marketflow.lake.session import table_name
from marketflow.settings import Settings

# sorted by these, rows of one partition come together, as the table's writer wants them
PARTITION_COLUMNS = ("product_id", "source", "interval", "event_ts", "last_updated", "ingested_at")
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def rows(table: Table, count: int, seed: int = 0, **fixed: Sequence[Any]) -> pa.Table:
    """Rows that differ in every column; nulls where the contract allows them. `fixed` are whole columns."""
    luck = random.Random(seed)
    columns = [fixed.get(column.name) or [_value(column, luck, n) for n in range(count)] for column in table.columns]
    fields = [pa.field(column.name, ARROW_TYPES[column.type], column.nullable) for column in table.columns]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, fields, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def append(spark: SparkSession, settings: Settings, table: Table, data: pa.Table) -> None:
    """One commit, of one file a partition."""
    frame = spark.createDataFrame(data.to_pylist(), table.spark_schema).coalesce(1)
    frame.sortWithinPartitions(*(column.name for column in table.columns if column.name in PARTITION_COLUMNS)).writeTo(
        table_name(settings, table)
    ).append()


def _value(column: Column, luck: random.Random, number: int) -> Any:
    if column.nullable and luck.random() < 0.2:
        return None
    return {
        Type.STRING: lambda: f"{column.name}-{luck.randrange(5)}-ü",
        Type.BINARY: lambda: luck.randbytes(4),
        Type.BOOLEAN: lambda: luck.random() < 0.5,
        Type.INTEGER: lambda: luck.randrange(2**31),
        Type.LONG: lambda: number + 1_000 * luck.randrange(1_000),
        Type.DOUBLE: lambda: luck.uniform(-1, 1),
        Type.MONEY: lambda: Decimal(luck.randrange(10**30)).scaleb(-18),
        Type.TIMESTAMP: lambda: NOON + timedelta(microseconds=luck.randrange(10**9)),
        Type.DATE: lambda: NOON.date(),
    }[column.type]()
