"""Which bronze rows a batch of silver reads, and the proof that none is missing.

Bronze is exactly once: the offsets of a partition follow each other without a hole. What a batch reads is therefore
bounded by offsets alone; snapshots and times only spare the reading of files. Batches are cut along one total order,
(ingested_at, topic, partition, offset), so that it does not matter how many batches a backlog is read in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.errors import LakeStateError
from marketflow.lake import silver_snapshots
from marketflow.lake.session import table_name
from marketflow.lake.silver_sources import Source
from marketflow.lake.watermark import Offsets, TopicPartition, Watermark
from marketflow.settings import Settings

# a clock that was set back makes later offsets look older; beyond this the offsets alone select
_CLOCK_MARGIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive offsets of one partition that came with one bronze batch: [first, after)."""

    topic: str
    partition: int
    first: int
    after: int
    ingested_at: datetime

    @property
    def where(self) -> TopicPartition:
        """Topic and partition."""
        return self.topic, self.partition


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one batch reads: per partition [first, after), and the bronze times these rows lie in."""

    first: Offsets
    after: Offsets
    oldest: datetime
    newest: datetime

    @property
    def messages(self) -> int:
        """How many bronze rows it must find."""
        return sum(self.after[where] - self.first[where] for where in self.first)

    def contains(self) -> Column:
        """Condition on bronze: exactly the rows of this chunk; the time is there for Iceberg to prune partitions by."""
        parts = [
            (f.col("topic") == topic)
            & (f.col("partition") == partition)
            & (f.col("offset") >= self.first[topic, partition])
            & (f.col("offset") < self.after[topic, partition])
            for topic, partition in self.first
        ]
        return f.col("ingested_at").between(f.lit(self.oldest), f.lit(self.newest)) & any_of(parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is new in bronze: where to read it, its runs in the total order, and the snapshot that was looked at.

    `is_all` says that nothing in that snapshot lies beyond the runs.
    """

    frame: DataFrame
    runs: list[Run]
    covers: int | None = None
    is_all: bool = True


def any_of(conditions: Sequence[Column]) -> Column:
    """Their disjunction; false where there are none."""
    joined = f.lit(False)
    for number, condition in enumerate(conditions):
        joined = condition if number == 0 else joined | condition
    return joined


def plan(
    spark: SparkSession, settings: Settings, source: Source, mark: Watermark | None, *, until: datetime | None = None
) -> Plan:
    """Find what lies at or beyond the watermark (ingested before `until`, where given) and prove it complete.

    Raises:
        LakeStateError: an offset is missing, or is there twice; names topic, partition and offsets.
    """
    name = table_name(settings, source.bronze)
    table = silver_snapshots.java_table(spark, name)
    snapshot = table.currentSnapshot()
    if snapshot is None:
        return Plan(spark.table(name), [])
    covers = snapshot.snapshotId()
    start = mark or Watermark({})
    if start.covers == covers:
        return Plan(spark.table(name), [], covers)
    for frame, is_everything in _candidates(spark, name, table, start):
        runs = _runs(frame.where(_beyond(start.next_offsets)))
        try:
            ordered = _in_order(runs, start.next_offsets, name)
        except LakeStateError:
            if is_everything:
                raise
            continue  # pruning hid it, or it is really gone: the whole table tells
        chosen = [run for run in ordered if until is None or run.ingested_at < until]
        return Plan(frame, chosen, covers, is_all=len(chosen) == len(ordered))
    raise AssertionError("the last candidate reads everything")


def _candidates(spark: SparkSession, name: str, table: Any, start: Watermark) -> Iterator[tuple[DataFrame, bool]]:
    """Ways to read what is new, the cheapest first; the last reads the whole table by offset."""
    newest = table.currentSnapshot().snapshotId()
    if start.covers is not None and silver_snapshots.only_grew_since(table, start.covers):
        increments = spark.read.format("iceberg").option("start-snapshot-id", start.covers)
        yield increments.option("end-snapshot-id", newest).load(name), False
    pinned = spark.read.format("iceberg").option("versionAsOf", newest).load(name)
    if start.ingested_at is not None:
        yield pinned.where(f.col("ingested_at") >= f.lit(start.ingested_at - _CLOCK_MARGIN)), False
    yield pinned, True


def _beyond(next_offsets: Offsets) -> Column:
    """At or after the watermark; every row of a partition that it does not name."""
    known = [(f.col("topic") == topic) & (f.col("partition") == partition) for topic, partition in next_offsets]
    later = [where & (f.col("offset") >= offset) for where, offset in zip(known, next_offsets.values(), strict=True)]
    return any_of([*later, ~any_of(known)])


def _runs(frame: DataFrame) -> list[tuple[Run, int]]:
    """One run per partition and bronze batch, with the rows found in it."""
    rows = (
        frame.groupBy("topic", "partition", "ingested_at")
        .agg(f.min("offset").alias("first"), f.max("offset").alias("last"), f.count("*").alias("rows"))
        .select("topic", "partition", "first", "last", "rows", f.unix_micros("ingested_at").alias("ingested_us"))
        .collect()
    )
    return [(Run(r.topic, r.partition, r["first"], r["last"] + 1, from_us(r.ingested_us)), r.rows) for r in rows]


def from_us(microseconds: int) -> datetime:
    """An aware time from microseconds since the epoch, exactly (collect() would use this machine's zone)."""
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(microseconds=microseconds)


def _in_order(found: list[tuple[Run, int]], next_offsets: Offsets, name: str) -> list[Run]:
    """The runs in the total order, each partition's following each other from the watermark on."""
    ordered = []
    expected = dict(next_offsets)
    latest: dict[TopicPartition, datetime] = {}
    for run, rows in sorted(found, key=lambda pair: (pair[0].where, pair[0].first)):
        due = expected.get(run.where, run.first)
        if run.first != due or rows != run.after - run.first:
            raise _broken(name, run, due, rows)
        expected[run.where] = run.after
        # within a partition the offset is the order, also where the clock was set back
        latest[run.where] = max(run.ingested_at, latest.get(run.where, run.ingested_at))
        ordered.append((latest[run.where], run))
    ordered.sort(key=lambda pair: (pair[0], pair[1].where, pair[1].first))
    return [run for _, run in ordered]


def _broken(name: str, run: Run, due: int, rows: int) -> LakeStateError:
    where = f"{name}, topic {run.topic}, partition {run.partition}"
    if run.first > due:
        return LakeStateError(
            f"{where}: offsets {due} to {run.first - 1} are missing; the next one there is {run.first}. "
            "Bronze lost them, or Kafka did before they were read. Nothing was committed"
        )
    kind = "missing" if rows < run.after - run.first else "there twice"
    return LakeStateError(
        f"{where}: {rows} rows with offsets {run.first} to {run.after - 1}, {due} was next: some are {kind}. "
        "Nothing was committed"
    )


def chunks(runs: Sequence[Run], most_messages: int) -> Iterator[Chunk]:
    """Cut the order into consecutive chunks of at most so many messages; a long run is cut through."""
    taken: list[Run] = []
    room = most_messages
    for whole in runs:
        first = whole.first
        while first < whole.after:
            after = min(whole.after, first + room)
            taken.append(Run(whole.topic, whole.partition, first, after, whole.ingested_at))
            room -= after - first
            first = after
            if room == 0:
                yield chunk(taken)
                taken, room = [], most_messages
    if taken:
        yield chunk(taken)


def chunk(runs: Iterable[Run]) -> Chunk:
    """One chunk of runs that follow each other within their partitions."""
    taken = list(runs)
    first: Offsets = {}
    after: Offsets = {}
    for run in taken:
        first[run.where] = min(run.first, first.get(run.where, run.first))
        after[run.where] = max(run.after, after.get(run.where, run.after))
    times = [run.ingested_at for run in taken]
    return Chunk(first, after, oldest=min(times), newest=max(times))


def check_complete(wanted: Chunk, read: Iterable[tuple[str, int, int, int]], name: str) -> None:
    """Hold the runs (topic, partition, first, last) that the parser saw against what the chunk promised.

    Raises:
        LakeStateError: a row was not read, or was read twice.
    """
    expected = dict(wanted.first)
    for topic, partition, first, last in sorted(read):
        due = expected.get((topic, partition))
        if due != first:
            raise LakeStateError(
                f"{name}, topic {topic}, partition {partition}: read offset {first} where {due} was next. "
                "Nothing was committed"
            )
        expected[topic, partition] = last + 1
    if expected != wanted.after:
        raise LakeStateError(f"{name}: read up to {expected}, not {wanted.after}. Nothing was committed")


def hour_runs(spark: SparkSession, settings: Settings, source: Source, start: datetime) -> Plan:
    """All bronze rows ingested in the hour that begins at `start`.

    Raises:
        LakeStateError: an offset between the hour's first and last of a partition is missing or there twice.
    """
    name = table_name(settings, source.bronze)
    silver_snapshots.java_table(spark, name)
    end = start + timedelta(hours=1)
    frame = spark.table(name).where((f.col("ingested_at") >= f.lit(start)) & (f.col("ingested_at") < f.lit(end)))
    return Plan(frame, _in_order(_runs(frame), {}, name))
