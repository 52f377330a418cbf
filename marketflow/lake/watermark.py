"""The watermark: the next Kafka offset per topic and partition, kept in the commit of the rows it covers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from marketflow.errors import LakeStateError
from marketflow.lake import silver_snapshots
from marketflow.lake.snapshots import PROPERTY_PREFIX, SnapshotSummary

TopicPartition = tuple[str, int]
Offsets = dict[TopicPartition, int]

# names of the snapshot properties, without their prefix
WATERMARK = "watermark"
ACCOUNTING = "accounting"
TOUCHED = "touched"
COVERS = "covers"
COVERED_TIME = "covered_ingested_at"
# written by close_hour into a table that has no watermark yet, so that it is known from one that lost it
BACKFILLED = "backfilled"
REDRIVEN = "redriven"

# more hours than this are given as first and last: a summary is read with every commit, and stays small
MOST_HOURS = 200
_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Watermark:
    """Where a table stands: `next_offsets` decides.

    `covers` is the bronze snapshot, `ingested_at` the newest bronze time it has read; both only prune.
    """

    next_offsets: Offsets
    covers: int | None = None
    ingested_at: datetime | None = None


def encode_offsets(offsets: Offsets) -> str:
    """JSON: topic to partition to offset."""
    nested: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        nested.setdefault(topic, {})[str(partition)] = offset
    return json.dumps(nested)


def decode_offsets(text: str) -> Offsets:
    """The inverse of encode_offsets."""
    return {
        (topic, int(partition)): int(offset)
        for topic, partitions in json.loads(text).items()
        for partition, offset in partitions.items()
    }


def properties(watermark: Watermark) -> dict[str, str]:
    """As snapshot properties, prefix included."""
    found = {WATERMARK: encode_offsets(watermark.next_offsets)}
    if watermark.covers is not None:
        found[COVERS] = str(watermark.covers)
    if watermark.ingested_at is not None:
        found[COVERED_TIME] = watermark.ingested_at.isoformat()
    return {PROPERTY_PREFIX + name: value for name, value in found.items()}


def newest(summaries: Iterable[SnapshotSummary]) -> Watermark | None:
    """The watermark of the newest snapshot that carries one."""
    for summary in summaries:
        if WATERMARK in summary.properties:
            covers, time = summary.properties.get(COVERS), summary.properties.get(COVERED_TIME)
            return Watermark(
                decode_offsets(summary.properties[WATERMARK]),
                covers=int(covers) if covers else None,
                ingested_at=datetime.fromisoformat(time) if time else None,
            )
    return None


def of_table(table: Any, name: str) -> Watermark | None:
    """The table's watermark; None for a table that never had one: it is empty, or holds backfilled hours alone.

    Raises:
        LakeStateError: rows without a watermark. Starting at zero would be right only by luck.
    """
    found = newest(silver_snapshots.walk(table))
    if found is not None or silver_snapshots.total_records(table) == 0:
        return found
    ours = next((summary for summary in silver_snapshots.walk(table) if summary.properties), None)
    if ours is not None and BACKFILLED in ours.properties:
        return None
    raise LakeStateError(
        f"{name} holds {silver_snapshots.total_records(table)} rows and no snapshot carries a watermark: "
        "its history was lost. Rebuild it: drop it, `make up`, and run the silver Dag's backfill"
    )


def encode_touched(touched: dict[str, list[datetime]]) -> str:
    """JSON: product to its sorted hours, or to [first, last] beside `"range": true` when there are many."""
    as_range = sum(map(len, touched.values())) > MOST_HOURS
    lists = {
        product: [hour.isoformat() for hour in ([hours[0], hours[-1]] if as_range else hours)]
        for product, hours in sorted((product, sorted(hours)) for product, hours in touched.items())
    }
    return json.dumps({**lists, "range": True} if as_range else lists)


def decode_touched(text: str) -> dict[str, list[datetime]]:
    """Product to hours; a range gives every hour in it."""
    stored = json.loads(text)
    as_range = stored.pop("range", False)
    touched = {
        product: [datetime.fromisoformat(hour).astimezone(UTC) for hour in hours] for product, hours in stored.items()
    }
    if not as_range:
        return touched
    return {
        product: [hours[0] + _HOUR * step for step in range((hours[-1] - hours[0]) // _HOUR + 1)]
        for product, hours in touched.items()
    }
