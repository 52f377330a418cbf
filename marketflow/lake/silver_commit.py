"""Writing a batch: rejected items first (idempotent), then the one commit of accepted rows with all that it says.

A crash between the two leaves rejected rows that the next run writes again, and finds there. A crash after the second
leaves ops rows and marks that the next run copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.silver import REJECTED
from marketflow.errors import LakeStateError
from marketflow.lake import silver_snapshots, watermark
from marketflow.lake.accounting import Accounting
from marketflow.lake.session import table_name
from marketflow.lake.silver_batch import Batch
from marketflow.lake.silver_sources import LINEAGE, Source
from marketflow.lake.snapshots import PROPERTY_PREFIX
from marketflow.lake.watermark import Watermark
from marketflow.settings import Settings
from marketflow.warehouse import accounting as ops_accounting
from marketflow.warehouse.locks import table_lock


@dataclass(frozen=True, slots=True)
class SilverCommit:
    """One commit of accepted rows, as its snapshot summary tells it."""

    table: str
    snapshot_id: int
    committed_at: datetime
    watermark: Watermark | None
    accounting: Accounting
    touched: dict[str, list[datetime]]
    newest_event_at: datetime | None


def insert_rejected(spark: SparkSession, settings: Settings, rejected: DataFrame) -> int:
    """Insert the rows whose lineage silver.rejected does not have; returns how many it got."""
    name = table_name(settings, REJECTED)
    with table_lock(settings, REJECTED.qualified):
        before = silver_snapshots.total_records(silver_snapshots.java_table(spark, name))
        bounds = rejected.agg(
            *(f.unix_micros(edge("rejected_at")).alias(label) for edge, label in ((f.min, "oldest"), (f.max, "newest")))
        ).first()
        if bounds is None or bounds.oldest is None:
            return 0
        # the bounds let Iceberg read the days in question and no others
        rejected.createOrReplaceTempView(_VIEW)
        same = " and ".join(f"kept.`{column}` = found.`{column}`" for column in LINEAGE)
        spark.sql(
            f"merge into {name} kept using {_VIEW} found on {same} "
            f"and kept.rejected_at between timestamp_micros({bounds.oldest}) and timestamp_micros({bounds.newest}) "
            "when not matched then insert *"
        )
        spark.catalog.dropTempView(_VIEW)
        return silver_snapshots.total_records(silver_snapshots.java_table(spark, name)) - before


_VIEW = "marketflow_rejected_items"


def append_accepted(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    batch: Batch,
    mark: Watermark | None,
    more: Mapping[str, str] | None = None,
) -> SilverCommit:
    """The one commit: accepted rows (none is fine) with watermark, accounting and touched hours in its summary.

    Raises:
        LakeStateError: the snapshot does not hold as many new rows as were accepted.
    """
    name = table_name(settings, source.table)
    properties = {
        PROPERTY_PREFIX + watermark.ACCOUNTING: batch.accounting.to_json(),
        PROPERTY_PREFIX + watermark.TOUCHED: watermark.encode_touched(batch.touched),
        **(watermark.properties(mark) if mark is not None else {}),
        **{PROPERTY_PREFIX + key: value for key, value in (more or {}).items()},
    }
    # Spark sorts the rows for the table's order itself, unless they are told to be in it
    writer = batch.accepted.writeTo(name).option("use-table-distribution-and-ordering", not batch.in_file_order)
    for key, value in properties.items():
        writer = writer.option(f"snapshot-property.{key}", value)
    writer.append()
    table = silver_snapshots.java_table(spark, name)
    added, wanted = silver_snapshots.added_records(table), batch.accounting.inserted
    snapshot = next(silver_snapshots.walk(table))
    if snapshot.properties.get(watermark.ACCOUNTING) != batch.accounting.to_json():
        raise LakeStateError(
            f"{name}: the newest snapshot, {snapshot.snapshot_id}, is not this batch's: another writer ignored the "
            "table's lock"
        )
    if added != wanted:
        raise LakeStateError(f"{name}: {added} rows were written where {wanted} were accepted; {_undone(table)}")
    return SilverCommit(
        source.table.qualified,
        snapshot.snapshot_id,
        snapshot.committed_at.astimezone(UTC),
        mark,
        batch.accounting,
        batch.touched,
        batch.newest_event_at,
    )


def _undone(table: Any) -> str:
    """Take the newest snapshot back, with the watermark in it; the table's lock is held."""
    snapshot = table.currentSnapshot()
    if snapshot.parentId() is None:
        return "there is no snapshot to go back to: drop the table, and the next advance fills it from bronze"
    table.manageSnapshots().rollbackTo(snapshot.parentId()).commit()
    return f"snapshot {snapshot.snapshotId()} was taken back"


def copy_accounting(spark: SparkSession, settings: Settings, source: Source) -> int:
    """Bring ops.silver_accounting up to the table's snapshots, those of a crashed run too."""
    table = silver_snapshots.java_table(spark, table_name(settings, source.table))
    return ops_accounting.copy_summaries(settings, source.table.qualified, silver_snapshots.walk(table))
