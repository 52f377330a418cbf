"""What may go from a lake table: snapshots that are old and that nobody needs, and files that no snapshot knows.

What must never go is the newest snapshot that carries a writer's memory: silver's watermark, gold's mark of what it
covers, the stream's last batch. Nor may a snapshot that a reader of increments has yet to read: gold of silver's,
publication of gold's. These stay however long their reader is away. All others of silver and gold stay for
`MARKETFLOW_SNAPSHOT_KEEP_HOURS`, which is longer than the promised outage: who was away for all of it finds clean data
as he left it, and can read it as of any moment in between. Bronze's, of which nobody reads increments, stay for a day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.contracts.gold import BARS, GOLD_TABLES
from marketflow.lake import silver_snapshots
from marketflow.lake.partitions import literal
from marketflow.lake.session import CATALOG, table_name
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect

# silver reads bronze by Kafka's offsets, which no expiry takes away; and with a commit every 30 s each hour of
# snapshots is 130 kB more of metadata that every commit writes anew
BRONZE_KEEP = timedelta(hours=24)
# however old they are
KEEP_SNAPSHOTS = 100

# what each layer's writer remembers in its snapshots: of every group, the newest snapshot that carries the first key
# that is found at all stays
_MEMORY = {
    "bronze": (("spark.sql.streaming.epochId",),),
    "silver": (("marketflow.watermark", "marketflow.backfilled"),),
    "gold": (("marketflow.silver_snapshot",), ("marketflow.hours",)),
}


def expire(spark: SparkSession, name: str, oldest: datetime) -> int:
    """Expire what is older; how many files went."""
    row = spark.sql(
        f"call {CATALOG}.system.expire_snapshots(table => '{name}', older_than => {literal(oldest)}, "
        f"retain_last => {KEEP_SNAPSHOTS})"
    ).first()
    done = row.asDict() if row is not None else {}
    return sum(int(count or 0) for key, count in done.items() if key.startswith("deleted_"))


def remove_orphans(spark: SparkSession, settings: Settings, name: str, now: datetime) -> int:
    """Files under the table that no snapshot knows. On s3:// only listing by prefix works.

    Young ones may be of a commit that is under way. They are as old as a snapshot must be, which is longer than any
    write takes.
    """
    rows = spark.sql(
        f"call {CATALOG}.system.remove_orphan_files(table => '{name}', "
        f"older_than => {literal(now - settings.snapshot_keep)}, prefix_listing => true)"
    )
    return rows.count()


def oldest_to_keep(spark: SparkSession, settings: Settings, table: Table, now: datetime) -> datetime:
    """Snapshots older than this may expire: past the time that is promised, and past any that is needed.

    `needed` by its writer, or by who has yet to read it.
    """
    stored = silver_snapshots.java_table(spark, table_name(settings, table))
    needed = [_memory(stored, keys) for keys in _MEMORY[table.layer]]
    if table.layer == "silver" or table is BARS:  # gold.product_day is made of gold.bars
        needed += [_time_of(stored, snapshot) for snapshot in _covered_by_gold(spark, settings)]
    if table.layer == "gold":
        needed.append(_time_of(stored, _published(settings, table)))
    keep = min(BRONZE_KEEP, settings.snapshot_keep) if table.layer == "bronze" else settings.snapshot_keep
    return min([now - keep, *(time for time in needed if time is not None)])


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
