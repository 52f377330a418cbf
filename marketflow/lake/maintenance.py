"""Keeping the lake light: properties, compaction of closed partitions, manifests, expiry, and orphans in the deep run.

All under the lock of the table's writer, so that the two never meet. Bronze has no such lock; of it only hours are
touched that are closed for two hours, and a lock of maintenance's own keeps two runs apart. Nothing here may change a
row: compaction is judged before it is committed (`compaction`), Iceberg itself refuses manifests that do not hold the
same files, and expiry (`expiry`) takes no file of the current snapshot; the rows are counted before and after it all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import BusyError, LakeStateError
from marketflow.lake import compaction, expiry, partitions, silver_snapshots
from marketflow.lake.compaction import Compacted
from marketflow.lake.session import CATALOG, table_name
from marketflow.lake.tables import table_properties
from marketflow.settings import Settings
from marketflow.warehouse.locks import table_lock

_MOST_MANIFESTS = 30


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done to one table, or why nothing was."""

    table: str
    rows: int = 0
    compacted: Compacted = field(default_factory=Compacted)
    manifests_rewritten: int = 0
    files_expired: int = 0
    orphans_removed: int = 0
    error: Exception | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.table}: {type(self.error).__name__}: {self.error}"
        done = self.compacted
        compacted = (
            f"{done.partitions} partitions of {done.files_before} files compacted into {done.files_after} files, "
            f"{done.checksum} before and after"
            if done.partitions
            else "no partition to compact"
        )
        return (
            f"{self.table}: {self.rows} rows before and after; {compacted}; {self.manifests_rewritten} manifests "
            f"rewritten, {self.files_expired} files expired, {self.orphans_removed} orphans removed"
        )


def maintain_all(
    spark: SparkSession,
    settings: Settings,
    *,
    now: datetime,
    deep: bool = False,
    tables: Sequence[Table] = LAKE_TABLES,
) -> list[Maintained]:
    """Maintain each table by itself: an error is kept for the caller and stops no other table."""
    done = []
    for table in tables:
        try:
            done.append(maintain(spark, settings, table, now=now, deep=deep))
        except Exception as error:  # the caller must fail on it: exit_code(done)
            done.append(Maintained(table.qualified, error=error))
    return done


def exit_code(done: Sequence[Maintained]) -> int:
    """1 where a table failed, 75 where one was only busy, else 0."""
    errors = [each.error for each in done if each.error is not None]
    if any(not isinstance(error, BusyError) for error in errors):
        return 1
    return BusyError.exit_code if errors else 0


def maintain(spark: SparkSession, settings: Settings, table: Table, *, now: datetime, deep: bool = False) -> Maintained:
    """One table, in the order compaction, manifests, expiry, orphans.

    The deep run compacts every closed partition that is not as it should be, the other one those of many files alone.

    Raises:
        BusyError: its writer is at work.
        LakeStateError: rows changed or would have changed, which nothing here may do.
    """
    name = table_name(settings, table)
    with table_lock(settings, f"maintenance of {table.qualified}" if table.layer == "bronze" else table.qualified):
        stored = silver_snapshots.java_table(spark, name)
        _set_properties(spark, settings, name, stored)
        if stored.currentSnapshot() is None:
            return Maintained(table.qualified)
        closed = partitions.closed_condition(table, now)
        # the stream appends meanwhile, so of bronze only what is closed can be counted twice
        counted = closed if table.layer == "bronze" else "true"
        rows = _count(spark, name, counted)
        compacted = compaction.compact(spark, name, table, now=now, deep=deep)
        manifests = _rewrite_manifests(spark, name)
        expired = expiry.expire(spark, name, expiry.oldest_to_keep(spark, settings, table, now))
        orphans = expiry.remove_orphans(spark, settings, name, now) if deep else 0
        after = _count(spark, name, counted)
        if after != rows:
            raise LakeStateError(f"{name} has {after} rows after maintenance and had {rows} before (where {counted})")
    return Maintained(table.qualified, rows, compacted, manifests, expired, orphans)


def _set_properties(spark: SparkSession, settings: Settings, name: str, stored: Any) -> None:
    properties = stored.properties()
    for key, value in table_properties(settings).items():
        if key != "format-version" and properties.get(key) != value:
            spark.sql(f"alter table {name} set tblproperties ('{key}' = '{value}')")


def _count(spark: SparkSession, name: str, condition: str) -> int:
    spark.catalog.refreshTable(name)
    return spark.table(name).where(condition).count()


def _rewrite_manifests(spark: SparkSession, name: str) -> int:
    stored = silver_snapshots.java_table(spark, name)
    if stored.currentSnapshot().allManifests(stored.io()).size() <= _MOST_MANIFESTS:
        return 0
    row = spark.sql(f"call {CATALOG}.system.rewrite_manifests(table => '{name}')").first()
    return int(row.rewritten_manifests_count) if row else 0
