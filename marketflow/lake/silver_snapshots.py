"""Snapshots of a table through Iceberg's own API: a walk of a few steps, where SQL would list a day of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession

from marketflow.lake.snapshots import PROPERTY_PREFIX, SnapshotSummary

# asked for one by one: going through a Java map entry by entry costs a round trip each, and an exception at its end
PROPERTIES = (
    *("watermark", "accounting", "touched", "covers", "covered_ingested_at", "backfilled", "redriven"),
    *("silver_snapshot", "beside_snapshot", "hours", "days", "version", "complete_through"),
)


def java_table(spark: SparkSession, name: str) -> Any:
    """Iceberg's table object, as it is in the catalog now and not as this session remembers it."""
    spark.catalog.refreshTable(name)
    jvm: Any = spark._jvm
    table = jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, name)
    table.refresh()
    return table


def walk(table: Any) -> Iterator[SnapshotSummary]:
    """The current snapshot and its ancestors, newest first, up to the oldest that was not expired."""
    snapshot = table.currentSnapshot()
    while snapshot is not None:
        summary = snapshot.summary()
        parent = snapshot.parentId()
        yield SnapshotSummary(
            snapshot_id=snapshot.snapshotId(),
            parent_id=parent,
            committed_at=datetime.fromtimestamp(snapshot.timestampMillis() / 1000, UTC),
            operation=snapshot.operation(),
            properties={
                name: value for name in PROPERTIES if (value := summary.get(PROPERTY_PREFIX + name)) is not None
            },
        )
        snapshot = None if parent is None else table.snapshot(parent)


def total_records(table: Any) -> int:
    """Rows of the current snapshot as its summary counts them; 0 where there is none."""
    snapshot = table.currentSnapshot()
    return 0 if snapshot is None else int(snapshot.summary().get("total-records") or 0)


def added_records(table: Any) -> int:
    """Rows that the current snapshot added."""
    return int(table.currentSnapshot().summary().get("added-records") or 0)


def only_grew_since(table: Any, snapshot_id: int) -> bool:
    """Whether `snapshot_id` is still there and all since then are appends or compactions, so increments can be read."""
    for summary in walk(table):
        if summary.snapshot_id == snapshot_id:
            return True
        if summary.operation not in ("append", "replace"):
            return False
    return False
