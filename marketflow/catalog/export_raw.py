"""`marketflow export raw`: bronze as lines of JSON, `raw/<topic>/ingest_date=…/part-00000.jsonl`.

Bronze is append-only, and lines are in the order of ingestion, partition and offset: writing a day again gives the same
lines, and new ones after them. Each part is put whole; parts that are no longer are deleted after the new ones stand.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from marketflow.catalog.export import VERSION, ExportReport, Memory, Scope, steps
from marketflow.catalog.objects import digest, listed
from marketflow.catalog.raw_lines import COLUMNS, line
from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.contracts.columns import Table
from marketflow.contracts.topics import TOPICS, Topic
from marketflow.errors import ConfigurationError
from marketflow.lake import readers
from marketflow.settings import Settings
from marketflow.warehouse.locks import table_lock

PART_BYTES = 256 * 1024**2
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def topic_of(name: str) -> Topic:
    """The topic of this name, with or without the dataset's prefix.

    Raises:
        ConfigurationError: there is none; the message names those that there are.
    """
    for topic in TOPICS:
        if name == topic.name or name.endswith(f".{topic.name}"):
            return topic
    raise ConfigurationError(f"no topic {name!r}; there are {', '.join(topic.name for topic in TOPICS)}")


def prefix_of(settings: Settings, topic: Topic) -> str:
    """`sim/export/raw/crypto.trades.raw/`."""
    return f"{settings.export_prefix}/raw/{topic.name}/"


def export_raw(
    settings: Settings, s3: Any, topic: Topic, scope: Scope | None = None, *, part_bytes: int = PART_BYTES
) -> ExportReport:
    """Write the days of a topic's bronze table that hold other files than when they were last written.

    `scope` is of ingestion times. An hour's records are in memory at a time; a part has about `part_bytes`.

    Raises:
        BusyError: the same export is at work in another process.
    """
    (table,) = [one for one in BRONZE_TABLES if one.name == topic.bronze]
    wish, prefix = scope or Scope(), prefix_of(settings, topic)
    with table_lock(settings, f"export raw {topic.name}"):
        snapshot_id = next((one.snapshot_id for one in readers.snapshots(settings, table)), None)
        hours = _hours(settings, table, snapshot_id) if snapshot_id is not None else {}
        days: dict[datetime, set[str]] = defaultdict(set)
        for hour, paths in hours.items():
            days[hour.replace(hour=0)] |= paths
        counts = {"written": 0, "unchanged": 0, "removed": 0, "rows": 0, "bytes": 0}
        with Memory.of(s3, settings.lake_bucket, f"{prefix}_exported.json") as memory:
            for day in sorted(day for day in days if wish.has(None, day, day + DAY)):
                folder = f"{prefix}ingest_date={day:%Y-%m-%d}/"
                there = listed(s3, settings.lake_bucket, folder)
                made_from = digest(VERSION, str(part_bytes), *sorted(days[day]))
                if memory.holds((f"{day:%Y-%m-%d}",), made_from, there):
                    counts["unchanged"] += 1
                    continue
                mine = sorted(hour for hour in hours if hour.replace(hour=0) == day)
                parts = _Parts(s3, settings.lake_bucket, folder, part_bytes)
                for hour in mine:
                    for row in _rows(settings, table, hour, snapshot_id):
                        parts.add(line(row, settings.topic_prefix))
                parts.close()
                for key in {one.key for one in there} - set(parts.etags):
                    s3.delete_object(Bucket=settings.lake_bucket, Key=key)
                memory.remember((f"{day:%Y-%m-%d}",), made_from, parts.rows, parts.etags)
                counts["written"] += 1
                counts["rows"] += parts.rows
                counts["bytes"] += parts.bytes
    return ExportReport(f"s3://{settings.lake_bucket}/{prefix}", **counts)


class _Parts:
    """Lines into numbered objects of about one size."""

    def __init__(self, s3: Any, bucket: str, folder: str, part_bytes: int) -> None:
        self._s3, self._bucket, self._folder, self._limit = s3, bucket, folder, part_bytes
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - close() is called, and a lost one is gone with the process
        self.etags: dict[str, str] = {}
        self.rows = self.bytes = 0

    def add(self, text: bytes) -> None:
        self.rows += 1
        self.bytes += self._file.write(text + b"\n")
        if self._file.tell() >= self._limit:
            self._put()

    def close(self) -> None:
        if self._file.tell():
            self._put()
        self._file.close()

    def _put(self) -> None:
        key = f"{self._folder}part-{len(self.etags):05}.jsonl"
        self._file.seek(0)
        self.etags[key] = str(self._s3.put_object(Bucket=self._bucket, Key=key, Body=self._file)["ETag"])
        self._file.close()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - as above


def _hours(settings: Settings, table: Table, snapshot_id: int) -> dict[datetime, set[str]]:
    """The hours of ingestion that have records, and the lake's files that hold them."""
    found: dict[datetime, set[str]] = defaultdict(set)
    for one in readers.data_files(settings, table, ("ingested_at",), snapshot_id=snapshot_id):
        for hour in steps(one, "ingested_at", HOUR):
            found[hour.astimezone(UTC)].add(one.path)
    return found


def _rows(settings: Settings, table: Table, hour: datetime, snapshot_id: int | None) -> Iterator[dict[str, Any]]:
    from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan

    mine = And(GreaterThanOrEqual("ingested_at", hour.isoformat()), LessThan("ingested_at", (hour + HOUR).isoformat()))
    rows = readers.load(settings, table, row_filter=mine, columns=COLUMNS, snapshot_id=snapshot_id)
    order = [("ingested_at", "ascending"), ("partition", "ascending"), ("offset", "ascending")]
    for batch in rows.sort_by(order).to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()
