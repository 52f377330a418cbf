"""Closing an hour: what bronze received in it is held against silver, and what silver lacks is inserted.

The cheap check compares counts with the accounting. Where they do not agree, or where a backfill asks for it, every
message of the hour is parsed again by the same code that advance runs. Nothing is overwritten and the watermark stays:
the commit carries the old one on, and names the hours it touched, so that gold becomes dirty.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.silver import REJECTED
from marketflow.errors import ConfigurationError
from marketflow.lake import silver_snapshots, watermark
from marketflow.lake.accounting import Accounting
from marketflow.lake.session import table_name
from marketflow.lake.silver_batch import Batch, hours_of, newest_of, touched_of, worked_out
from marketflow.lake.silver_commit import SilverCommit, append_accepted, copy_accounting, insert_rejected
from marketflow.lake.silver_read import Chunk, Plan, any_of, chunk, chunks, hour_runs
from marketflow.lake.silver_sources import Source
from marketflow.lake.watermark import Offsets
from marketflow.settings import Settings
from marketflow.warehouse import accounting as ops_accounting
from marketflow.warehouse.locks import table_lock


@dataclass(frozen=True, slots=True)
class ClosedHour:
    """What closing one hour found and did. `missing_before` counts items that were in neither table."""

    table: str
    hour: datetime
    messages: int
    items: int
    missing_before: int
    inserted: int
    inserted_rejected: int
    parsed_again: bool
    commits: tuple[SilverCommit, ...] = ()


def close_hour(
    spark: SparkSession, settings: Settings, source: Source, hour: datetime, *, force: bool = False
) -> ClosedHour:
    """Reconcile the messages that bronze ingested in [hour, hour + 1 h) and insert what silver lacks.

    With `force` every message is parsed again even where the counts agree (a backfill). Hours backfilled into a table
    that has no watermark make none: the next advance reads bronze from its first offset and finds them already here.

    Raises:
        BusyError: another process writes the table.
        LakeStateError: bronze has a hole in the hour, or the table lost its watermark.
    """
    if hour.tzinfo is None or hour != hour.replace(minute=0, second=0, microsecond=0):
        raise ConfigurationError(f"{hour} is not the start of an hour with its zone")
    hour = hour.astimezone(UTC)
    with table_lock(settings, source.table.qualified):
        copy_accounting(spark, settings, source)
        found = hour_runs(spark, settings, source, hour)
        whole = chunk(found.runs) if found.runs else None
        if whole is None:
            return ClosedHour(source.table.qualified, hour, 0, 0, 0, 0, 0, parsed_again=False)
        if not force:
            items = reconciled_items(spark, settings, source, whole)
            if items is not None:
                return ClosedHour(source.table.qualified, hour, whole.messages, items, 0, 0, 0, parsed_again=False)
        return _parse_again(spark, settings, source, hour, found, whole.messages)


def _parse_again(
    spark: SparkSession, settings: Settings, source: Source, hour: datetime, found: Plan, messages: int
) -> ClosedHour:
    name = table_name(settings, source.table)
    total, rejected, commits = Accounting(), 0, []
    for piece in chunks(found.runs, source.most_messages):
        mark = watermark.of_table(silver_snapshots.java_table(spark, name), name)
        with worked_out(spark, settings, source, found.frame, piece) as batch:
            total += batch.accounting
            if batch.accounting.rejected:
                rejected += insert_rejected(spark, settings, batch.rejected)
            repair = _without_quarantined(spark, settings, source, batch, piece)
            if repair.accounting.inserted:
                more = {watermark.BACKFILLED: hour.isoformat()} if mark is None else {}
                commits.append(append_accepted(spark, settings, source, repair, mark, more))
    copy_accounting(spark, settings, source)
    inserted = sum(commit.accounting.inserted for commit in commits)
    return ClosedHour(
        source.table.qualified,
        hour,
        messages,
        total.items,
        inserted + rejected,
        inserted,
        rejected,
        parsed_again=True,
        commits=tuple(commits),
    )


def _without_quarantined(spark: SparkSession, settings: Settings, source: Source, batch: Batch, piece: Chunk) -> Batch:
    """The batch as a repair: counted as inserted rows alone, and without items that silver.rejected holds.

    Those were refused by an older parser and are accounted for there, until they are redriven.
    """
    accepted = batch.accepted
    kept = in_offsets(spark.table(table_name(settings, REJECTED)), piece.first, piece.after).where(
        f.col("rejected_at").between(f.lit(piece.oldest), f.lit(piece.newest))
    )
    quarantined = kept.select("topic", "partition", "offset", f.col("item_index").alias("refused_index"))
    same_item = [accepted[name] == quarantined[name] for name in ("topic", "partition", "offset")]
    whole_or_item = (quarantined["refused_index"] == -1) | (quarantined["refused_index"] == accepted["item_index"])
    left = accepted.join(f.broadcast(quarantined), [*same_item, whole_or_item], "left_anti")
    hours = hours_of(source, left)
    inserted = sum(hour.rows for hour in hours)
    return replace(
        batch,
        accepted=left,
        accounting=Accounting(items=inserted, accepted=inserted),
        touched=touched_of(hours),
        newest_event_at=newest_of(hours),
    )


def in_offsets(rows: DataFrame, first: Offsets, after: Offsets) -> DataFrame:
    """Rows whose lineage lies within these offsets."""
    return rows.where(
        any_of(
            [
                (f.col("topic") == topic)
                & (f.col("partition") == partition)
                & f.col("offset").between(first[topic, partition], after[topic, partition] - 1)
                for topic, partition in first
            ]
        )
    )


def reconciled_items(spark: SparkSession, settings: Settings, source: Source, hour: Chunk) -> int | None:
    """Items of the commits that read the hour's offsets, when the tables hold all of them; None where they do not.

    Compares the accounting of whole commits (they end where advance ended, not on the hour) with the rows of their
    offsets. Offsets that no commit or two commits claim reconcile nothing.
    """
    accounts = ops_accounting.covering(settings, source.table.qualified, hour.first, hour.after)
    span = _tiled(accounts, hour)
    if span is None:
        return None
    first, after = span
    accepted = in_offsets(spark.table(table_name(settings, source.table)), first, after).count()
    refused = spark.table(table_name(settings, REJECTED)).where(f.col("source_table") == source.table.qualified)
    rejected = in_offsets(refused, first, after).count()
    agrees = accepted == sum(a["accepted"] for a in accounts) and rejected == sum(a["rejected"] for a in accounts)
    return sum(a["items"] for a in accounts) if agrees else None


def _tiled(accounts: Sequence[dict[str, Any]], hour: Chunk) -> tuple[Offsets, Offsets] | None:
    """First and next offsets of all the commits together, when they cover the hour without hole or overlap."""
    pieces: dict[watermark.TopicPartition, list[tuple[int, int]]] = {}
    for account in accounts:
        first, after = (
            watermark.decode_offsets(json.dumps(account[name])) for name in ("first_offsets", "next_offsets")
        )
        for where in first:
            pieces.setdefault(where, []).append((first[where], after[where]))
    for ranges in pieces.values():
        ranges.sort()
        if any(before[1] != following[0] for before, following in pairwise(ranges)):
            return None
    covered = all(
        where in pieces and pieces[where][0][0] <= hour.first[where] and pieces[where][-1][1] >= hour.after[where]
        for where in hour.first
    )
    if not covered:
        return None
    return {w: r[0][0] for w, r in pieces.items()}, {w: r[-1][1] for w, r in pieces.items()}
