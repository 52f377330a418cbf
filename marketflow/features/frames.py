"""Contracts as Polars and Arrow types, so that a kernel's output fits its table without a second list of columns."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from marketflow.contracts.columns import MONEY_PRECISION, MONEY_SCALE, Table, Type

MONEY = pl.Decimal(MONEY_PRECISION, MONEY_SCALE)
TIMESTAMP = pl.Datetime("us", "UTC")

POLARS_TYPES: dict[Type, pl.DataType] = {
    Type.STRING: pl.String(),
    Type.BINARY: pl.Binary(),
    Type.BOOLEAN: pl.Boolean(),
    Type.INTEGER: pl.Int32(),
    Type.LONG: pl.Int64(),
    Type.DOUBLE: pl.Float64(),
    Type.MONEY: MONEY,
    Type.TIMESTAMP: TIMESTAMP,
    Type.DATE: pl.Date(),
}

ARROW_TYPES: dict[Type, pa.DataType] = {
    Type.STRING: pa.string(),
    Type.BINARY: pa.binary(),
    Type.BOOLEAN: pa.bool_(),
    Type.INTEGER: pa.int32(),
    Type.LONG: pa.int64(),
    Type.DOUBLE: pa.float64(),
    Type.MONEY: pa.decimal128(MONEY_PRECISION, MONEY_SCALE),
    Type.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Type.DATE: pa.date32(),
}


def schema(table: Table) -> pl.Schema:
    """The contract's columns in its order, as Polars types. Source: `marketflow/contracts/`."""
    return pl.Schema({column.name: POLARS_TYPES[column.type] for column in table.columns})


def empty(table: Table) -> pl.DataFrame:
    """No rows, the contract's columns and types."""
    return pl.DataFrame(schema=schema(table))


def conform(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """The contract's columns alone, in its order and types.

    Strict: a missing column or a value that does not fit raises Polars' own error; nothing becomes null.
    """
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema(table).items())


def to_arrow(frame: pl.DataFrame, table: Table) -> pa.Table:
    """The frame as Arrow with 32-bit string offsets, which is what Spark's applyInArrow and Iceberg writers expect.

    Polars alone would hand out large_string. Columns are conformed first; nullability is the contract's.
    """
    fields = [pa.field(column.name, ARROW_TYPES[column.type], column.nullable) for column in table.columns]
    return conform(frame, table).to_arrow().cast(pa.schema(fields))
