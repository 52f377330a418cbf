"""Column types that every engine here can keep exactly, and how each engine spells them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MONEY_PRECISION = 38
MONEY_SCALE = 18


class Type(Enum):
    """A column's type; the value is its Spark SQL spelling."""

    STRING = "string"
    BINARY = "binary"
    BOOLEAN = "boolean"
    INTEGER = "int"
    LONG = "bigint"
    DOUBLE = "double"
    MONEY = "decimal(38,18)"
    TIMESTAMP = "timestamp"
    DATE = "date"

    @property
    def spark(self) -> str:
        """Spark SQL and Iceberg DDL. `timestamp` is with time zone (Iceberg timestamptz), microseconds, UTC."""
        return self.value

    @property
    def postgres(self) -> str:
        """PostgreSQL DDL."""
        return {
            Type.STRING: "text",
            Type.BINARY: "bytea",
            Type.BOOLEAN: "boolean",
            Type.INTEGER: "integer",
            Type.LONG: "bigint",
            Type.DOUBLE: "double precision",
            Type.MONEY: "numeric(38,18)",
            Type.TIMESTAMP: "timestamptz",
            Type.DATE: "date",
        }[self]


@dataclass(frozen=True, slots=True)
class Column:
    """One column's promise: name, type, unit (empty where it has none), a sentence, and whether null is allowed."""

    name: str
    type: Type
    description: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table's contract. `layer` is its namespace (Iceberg) or schema (Postgres).

    `key` identifies a row; `partitioning` is Iceberg transforms in Spark SQL (`days(event_ts)`); `sort_order` is the
    order within files; `owner` is the one program that may write it; `hour_column` is the event time that hours are
    cut by (gold), None where the table has no hours. `day_column` is the time by whose days the table is partitioned in
    PostgreSQL, so that old days are dropped whole; it is in the key, and None where the table is one piece there.
    """

    layer: str
    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    owner: str
    description: str
    partitioning: tuple[str, ...] = ()
    sort_order: tuple[str, ...] = ()
    hour_column: str | None = None
    day_column: str | None = None

    @property
    def qualified(self) -> str:
        """`silver.trades`: the name used in docs, messages, locks and assets; never carries the dataset."""
        return f"{self.layer}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in contract order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name; KeyError where the contract has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.qualified} has no column {name}")

    @property
    def spark_schema(self) -> str:
        """Columns as Spark DDL, for createDataFrame, mapInArrow and readers."""
        return ", ".join(f"`{column.name}` {column.type.spark}" for column in self.columns)
