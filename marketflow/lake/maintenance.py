"""Keeping the lake light: properties, compaction of closed partitions, manifests, expiry, and orphans in the deep run.

What must never go is the newest snapshot that carries a writer's memory: silver's watermark, gold's mark of what it
covers, the stream's last batch. Nor may a snapshot that a reader of increments has yet to read: gold of silver's,
publication of gold's. Compaction touches closed partitions only, under the table's lock; bronze has no lock, and its
hours are closed for two hours before they are touched, so that the stream is never met.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.contracts.gold import BARS, GOLD_TABLES
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import BusyError, LakeStateError
from marketflow.lake import silver_snapshots
from marketflow.lake.session import CATALOG, table_name
from marketflow.lake.tables import TABLE_PROPERTIES
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

KEEP_SNAPSHOTS_FOR = timedelta(hours=24)
KEEP_SNAPSHOTS = 100
BRONZE_CLOSED_FOR = timedelta(hours=2)
# longer than any write may take: a file that no snapshot knows yet is not an orphan
ORPHAN_AFTER = timedelta(days=3)
_MOST_MANIFESTS = 30

# what each layer's writer remembers in its snapshots: of every group, the newest snapshot that carries the first key
# that is found at all stays
_MEMORY = {
    "bronze": (("spark.sql.streaming.epochId",),),
    "silver": (("marketflow.watermark", "marketflow.backfilled"),),
    "gold": (("marketflow.silver_snapshot",), ("marketflow.hours",)),
}


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done to one table, or why nothing was."""

    table: str
    rows: int = 0
    files_compacted: int = 0
    files_written: int = 0
    manifests_rewritten: int = 0
    files_expired: int = 0
    orphans_removed: int = 0
    error: Exception | None = None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.table}: {type(self.error).__name__}: {self.error}"
        return (
            f"{self.table}: {self.rows} rows before and after, {self.files_compacted} files compacted "
            f"into {self.files_written}, {self.manifests_rewritten} manifests rewritten, {self.files_expired} files "
            f"expired, {self.orphans_removed} orphans removed"
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

    Raises:
        BusyError: its writer is at work.
        LakeStateError: the number of rows changed, which nothing here may do.
    """
    name = table_name(settings, table)
    lock: AbstractContextManager[None] = (
        nullcontext() if table.layer == "bronze" else table_lock(settings, table.qualified)
    )
    with lock:
        stored = silver_snapshots.java_table(spark, name)
        _set_properties(spark, name, stored)
        if stored.currentSnapshot() is None:
            return Maintained(table.qualified)
        closed = closed_condition(table, now)
        # the stream appends meanwhile, so of bronze only what is closed can be counted twice
        counted = closed if table.layer == "bronze" else "true"
        rows = _count(spark, name, counted)
        compacted, written = _compact(spark, name, table, closed)
        manifests = _rewrite_manifests(spark, name)
        expired = _expire(spark, name, oldest_to_keep(spark, settings, table, now))
        orphans = _remove_orphans(spark, name, now) if deep else 0
        after = _count(spark, name, counted)
        if after != rows:
            raise LakeStateError(f"{name} has {after} rows after maintenance and had {rows} before (where {counted})")
    return Maintained(table.qualified, rows, compacted, written, manifests, expired, orphans)


def _set_properties(spark: SparkSession, name: str, stored: Any) -> None:
    properties = stored.properties()
    for key, value in TABLE_PROPERTIES.items():
        if key != "format-version" and properties.get(key) != value:
            spark.sql(f"alter table {name} set tblproperties ('{key}' = '{value}')")


def closed_condition(table: Table, now: datetime) -> str:
    """SQL that is true for rows of closed partitions: hours closed for two hours, days before today.

    Of a table without partitions by time all is taken, which its lock allows; bronze has no lock.
    """
    for transform in table.partitioning:
        found = re.fullmatch(r"(hours|days)\((\w+)\)", transform)
        if found:
            if found[1] == "hours":
                border = (now - BRONZE_CLOSED_FOR).replace(minute=0, second=0, microsecond=0)
            else:
                border = now.replace(hour=0, minute=0, second=0, microsecond=0)
            return f"{found[2]} < {_literal(border)}"
    if table.layer == "bronze":
        raise LakeStateError(f"{table.qualified} has no partition by time to close, and the stream writes to it")
    return "true"


def oldest_to_keep(spark: SparkSession, settings: Settings, table: Table, now: datetime) -> datetime:
    """Snapshots older than this may expire: a day old, and older than any that a writer or reader still needs."""
    stored = silver_snapshots.java_table(spark, table_name(settings, table))
    needed = [_memory(stored, keys) for keys in _MEMORY[table.layer]]
    if table.layer == "silver" or table is BARS:  # gold.product_day is made of gold.bars
        needed += [_time_of(stored, snapshot) for snapshot in _covered_by_gold(spark, settings)]
    if table.layer == "gold":
        needed.append(_time_of(stored, _published(settings, table)))
    return min([now - KEEP_SNAPSHOTS_FOR, *(time for time in needed if time is not None)])


def _memory(stored: Any, keys: Sequence[str]) -> datetime | None:
    """Time of the newest snapshot that carries one of these summary keys; the first key that is found counts."""
    for key in keys:
        snapshot = stored.currentSnapshot()
        while snapshot is not None:
            if snapshot.summary().get(key) is not None:
                return _time(snapshot)
            parent = snapshot.parentId()
            snapshot = None if parent is None else stored.snapshot(parent)
    return None


def _covered_by_gold(spark: SparkSession, settings: Settings) -> list[int]:
    """The snapshots, of whatever it is made of, up to which each gold table is true."""
    covered = []
    for gold in GOLD_TABLES:
        for summary in silver_snapshots.walk(silver_snapshots.java_table(spark, table_name(settings, gold))):
            if "silver_snapshot" in summary.properties:
                names = ("silver_snapshot", "beside_snapshot")
                covered += [int(summary.properties[name]) for name in names if name in summary.properties]
                break
    return covered


def _published(settings: Settings, table: Table) -> int | None:
    with connect(settings) as connection:
        row = connection.execute(
            "select last_snapshot_id from ops.publish_audit where table_name = %s", (table.qualified,)
        ).fetchone()
    return row[0] if row else None


def _time_of(stored: Any, snapshot_id: int | None) -> datetime | None:
    snapshot = None if snapshot_id is None else stored.snapshot(snapshot_id)
    return None if snapshot is None else _time(snapshot)


def _time(snapshot: Any) -> datetime:
    return datetime.fromtimestamp(snapshot.timestampMillis() / 1000, UTC)


def _literal(time: datetime) -> str:
    return f"timestamp '{time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _call(spark: SparkSession, procedure: str, arguments: str) -> dict[str, Any]:
    row = spark.sql(f"call {CATALOG}.system.{procedure}({arguments})").first()
    return row.asDict() if row is not None else {}


def _count(spark: SparkSession, name: str, condition: str) -> int:
    spark.catalog.refreshTable(name)
    return spark.table(name).where(condition).count()


def _compact(spark: SparkSession, name: str, table: Table, closed: str) -> tuple[int, int]:
    """Files read and written. Each partition commits by itself, so that an end in between loses little."""
    strategy = "sort" if table.sort_order else "binpack"
    where = closed.replace("'", '"')
    done = _call(
        spark,
        "rewrite_data_files",
        f"table => '{name}', strategy => '{strategy}', where => '{where}', "
        "options => map('partial-progress.enabled', 'true', 'partial-progress.max-commits', '10')",
    )
    if done.get("failed_data_files_count"):
        raise LakeStateError(f"{name}: {done['failed_data_files_count']} files could not be compacted")
    return int(done["rewritten_data_files_count"]), int(done["added_data_files_count"])


def _rewrite_manifests(spark: SparkSession, name: str) -> int:
    stored = silver_snapshots.java_table(spark, name)
    if stored.currentSnapshot().allManifests(stored.io()).size() <= _MOST_MANIFESTS:
        return 0
    return int(_call(spark, "rewrite_manifests", f"table => '{name}'")["rewritten_manifests_count"])


def _expire(spark: SparkSession, name: str, oldest: datetime) -> int:
    done = _call(
        spark,
        "expire_snapshots",
        f"table => '{name}', older_than => {_literal(oldest)}, retain_last => {KEEP_SNAPSHOTS}",
    )
    return sum(int(count or 0) for key, count in done.items() if key.startswith("deleted_"))


def _remove_orphans(spark: SparkSession, name: str, now: datetime) -> int:
    """Files under the table that no snapshot knows. On s3:// only listing by prefix works."""
    rows = spark.sql(
        f"call {CATALOG}.system.remove_orphan_files(table => '{name}', "
        f"older_than => {_literal(now - ORPHAN_AFTER)}, prefix_listing => true)"
    )
    return rows.count()
