"""Iceberg tables from contracts: create, evolve, and read what their snapshots say about themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Column, Table, Type
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import ContractError
from marketflow.lake.session import CATALOG, table_name
from marketflow.lake.snapshots import PROPERTY_PREFIX as PROPERTY_PREFIX
from marketflow.lake.snapshots import SnapshotSummary as SnapshotSummary
from marketflow.settings import Settings

_WIDENINGS = {(Type.INTEGER, Type.LONG)}
_STORED_TYPES = {kind.value: kind for kind in Type}


def table_properties(settings: Settings) -> dict[str, str]:
    """Few metadata files from the first day, and enough snapshots for incremental readers and the stream's recovery."""
    return {
        "format-version": "2",
        "write.parquet.compression-codec": "zstd",
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "20",
        "history.expire.max-snapshot-age-ms": str(settings.snapshot_keep // timedelta(milliseconds=1)),
        "history.expire.min-snapshots-to-keep": "100",
        # never 0: an ambiguous commit would then delete live files
        "commit.retry.num-retries": "10",
        "write.distribution-mode": "none",
    }


def create_statement(settings: Settings, table: Table) -> str:
    """`create table` of the contract in this dataset's namespace."""
    columns = ",\n  ".join(
        f"`{column.name}` {column.type.spark}{'' if column.nullable else ' not null'}" for column in table.columns
    )
    properties = ", ".join(f"'{name}' = '{value}'" for name, value in table_properties(settings).items())
    partitioning = f"\npartitioned by ({', '.join(table.partitioning)})" if table.partitioning else ""
    name = table_name(settings, table)
    head = f"create table if not exists {name} (\n  {columns}\n)\nusing iceberg"
    return f"{head}{partitioning}\ntblproperties ({properties})"


def _evolve(spark: SparkSession, settings: Settings, table: Table) -> list[str]:
    name = table_name(settings, table)
    if not spark.catalog.tableExists(name):
        spark.sql(create_statement(settings, table))
        if table.sort_order:
            spark.sql(f"alter table {name} write locally ordered by {', '.join(table.sort_order)}")
        return ["created"]
    stored = {field.name: field.dataType.simpleString() for field in spark.table(name).schema.fields}
    for extra in stored.keys() - set(table.column_names):
        raise ContractError(f"{name} has column {extra} that its contract does not: rename or drop it by hand")
    changes = (_evolve_column(spark, name, column, stored.get(column.name)) for column in table.columns)
    return [change for change in changes if change]


def _evolve_column(spark: SparkSession, name: str, column: Column, stored: str | None) -> str | None:
    kind = _STORED_TYPES.get(stored) if stored else None
    if kind is column.type:
        return None
    if stored is None and column.nullable:
        spark.sql(f"alter table {name} add column `{column.name}` {column.type.spark}")
        return f"added {column.name}"
    if kind is not None and (kind, column.type) in _WIDENINGS:
        spark.sql(f"alter table {name} alter column `{column.name}` type {column.type.spark}")
        return f"widened {column.name}"
    raise ContractError(
        f"{name}.{column.name} is {stored or 'missing and not nullable'}, its contract says {column.type.spark}: "
        "only new nullable columns and wider integers are applied by themselves"
    )


def apply_contracts(
    spark: SparkSession, settings: Settings, tables: Sequence[Table] = LAKE_TABLES
) -> dict[str, list[str]]:
    """Create or evolve the lake tables of the dataset, all by default. Returns table → changes for those that changed.

    Raises:
        ContractError: a stored table differs in a way that is not an allowed evolution.
    """
    for layer in dict.fromkeys(table.layer for table in tables):
        spark.sql(f"create namespace if not exists {CATALOG}.{settings.namespace(layer)}")
    done = {table.qualified: _evolve(spark, settings, table) for table in tables}
    return {name: changes for name, changes in done.items() if changes}


def snapshot_properties(spark: SparkSession, name: str) -> list[SnapshotSummary]:
    """Snapshots of a table's current history, newest first, with their `marketflow.` properties."""
    rows = spark.sql(
        f"select s.snapshot_id, s.parent_id, s.committed_at, s.operation, s.summary from {name}.snapshots s "  # noqa: S608 - our own table name
        f"join {name}.history h on h.snapshot_id = s.snapshot_id where h.is_current_ancestor "
        "order by h.made_current_at desc"
    ).collect()
    return [
        SnapshotSummary(
            snapshot_id=row.snapshot_id,
            parent_id=row.parent_id,
            committed_at=row.committed_at,
            operation=row.operation,
            properties={
                key.removeprefix(PROPERTY_PREFIX): value
                for key, value in row.summary.items()
                if key.startswith(PROPERTY_PREFIX)
            },
        )
        for row in rows
    ]
