"""A bronze query's checkpoint made anew from what its table holds, where the old one is lost or cannot be read.

A checkpoint says which Kafka records a query has read. Without it Spark would begin with the oldest record and the
table would hold everything twice, so a query whose checkpoint is gone does not start while its table has rows
(`starting_offsets`). The table itself knows what it holds, by partition and offset: a reset writes the next ones into
a new checkpoint's folder, from which the query begins. It refuses where a record would be lost or doubled by that.

The live queries need none: their tables are keyed, so reading Kafka again changes nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.contracts.topics import TOPICS, Topic
from marketflow.errors import BusyError, LakeStateError
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import java_table, total_records
from marketflow.settings import Settings
from marketflow.warehouse import fence
from marketflow.warehouse.locks import table_lock

FILE = "starting_offsets.json"
"""In a checkpoint's folder: where its query begins, as Spark's option startingOffsets takes it."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a bronze table has of one partition."""

    lowest: int
    highest: int
    rows: int
    offsets: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A query, and the next offset of each partition that its table does not hold yet."""

    query: str
    topic: str
    offsets: dict[int, int]
    unread: int
    archived_to: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For a job's JSON line."""
        return asdict(self)


def query_name(topic: Topic) -> str:
    """`bronze_trades_raw`: the query's name, and the name of its checkpoint's folder."""
    return f"bronze_{topic.bronze}"


def starting_offsets(spark: SparkSession, settings: Settings, topic: Topic) -> str:
    """Spark's option startingOffsets for a bronze query: it counts only where the checkpoint has no batch yet.

    Raises:
        LakeStateError: the checkpoint is gone, or was never written, and the table has rows.
    """
    folder = f"{settings.checkpoints}/{query_name(topic)}"
    files = _Files(spark, folder)
    if files.holds_any(f"{folder}/offsets"):
        return "earliest"
    if (left := files.text(f"{folder}/{FILE}")) is not None:
        return left
    table = java_table(spark, table_name(settings, _bronze(topic)))
    if table.currentSnapshot() is not None and total_records(table):
        raise LakeStateError(
            f"the checkpoint of {query_name(topic)} is gone and bronze.{topic.bronze} has rows: read again from the "
            "first record of Kafka they would be there twice. Put the folder back, or run Dag stream_reset: the query "
            "then begins behind what the table holds"
        )
    return "earliest"


def plan(spark: SparkSession, settings: Settings, topics: Iterable[Topic] = TOPICS) -> list[Reset]:
    """Where each query would begin after a reset; nothing is changed.

    Raises:
        LakeStateError: with every reason why a record would be lost or doubled.
    """
    resets, problems = [], []
    for topic in topics:
        name = topic.full_name(settings.topic_prefix)
        kafka = _watermarks(settings, name)
        held = _held(spark, settings, topic)
        problems += refusals(f"bronze.{topic.bronze}", held, kafka)
        offsets = {partition: held[partition].highest + 1 if partition in held else 0 for partition in sorted(kafka)}
        unread = sum(max(0, kafka[partition][1] - begin) for partition, begin in offsets.items())
        resets.append(Reset(query_name(topic), name, offsets, unread))
    if problems:
        raise LakeStateError(f"no reset, since a record would be lost or doubled: {'; '.join(problems)}")
    return resets


def refusals(table: str, held: Mapping[int, Held], kafka: Mapping[int, tuple[int, int]]) -> list[str]:
    """Why a reset must not be, a sentence each. `kafka` has the first and the next offset of each partition."""
    found = [
        f"{table} holds partition {partition}, which Kafka's topic has not: is it the same topic?"
        for partition in sorted(set(held) - set(kafka))
    ]
    for partition, (low, high) in sorted(kafka.items()):
        own = held.get(partition)
        where = f"{table}, partition {partition}"
        if own is None:
            if low > 0:
                found.append(f"{where}: it holds nothing, and Kafka has forgotten the records before offset {low}")
            continue
        if own.rows > own.offsets:
            found.append(f"{where}: {own.rows - own.offsets} records are there twice already")
        if (lacking := own.highest - own.lowest + 1 - own.offsets) > 0:
            found.append(f"{where}: {lacking} records between its first and its last are not there")
        if low > own.highest + 1:
            found.append(f"{where}: Kafka has forgotten offsets {own.highest + 1} to {low - 1} unread")
        if high < own.highest + 1:
            found.append(f"{where}: it holds offset {own.highest}, and Kafka ends before {high}: it is another topic")
    return found


def reset(
    spark: SparkSession,
    settings: Settings,
    topics: Iterable[Topic] = TOPICS,
    *,
    fence_wait_s: float = fence.WAIT_S,
) -> list[Reset]:
    """Put each query's checkpoint aside and leave a new one that begins behind what the table holds.

    The stream must be stopped, and stays so while this runs: its lock is held. A run that was killed in the middle is
    simply made again.

    Raises:
        BusyError: the stream runs.
        LakeStateError: as `plan`.
    """
    try:
        with table_lock(settings, fence.CHECKPOINT):
            # whoever held the lock may write for some seconds after it was lost to him
            time.sleep(fence_wait_s)
            return [_begin_anew(spark, settings, each) for each in plan(spark, settings, topics)]
    except BusyError as error:
        raise BusyError(f"dataset {settings.dataset}: the stream runs, stop service market-stream first") from error


def _begin_anew(spark: SparkSession, settings: Settings, planned: Reset) -> Reset:
    folder = f"{settings.checkpoints}/{planned.query}"
    aside = f"{settings.checkpoints}/reset/{planned.query}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}Z"
    files = _Files(spark, folder)
    archived = files.move(folder, aside)
    begin = {planned.topic: {str(partition): offset for partition, offset in planned.offsets.items()}}
    files.write(f"{folder}/{FILE}", json.dumps(begin))
    return replace(planned, archived_to=aside if archived else None)


def _bronze(topic: Topic) -> Any:
    return next(table for table in BRONZE_TABLES if table.name == topic.bronze)


def _held(spark: SparkSession, settings: Settings, topic: Topic) -> dict[int, Held]:
    rows = (
        spark.table(table_name(settings, _bronze(topic)))
        .where(f.col("topic") == topic.full_name(settings.topic_prefix))
        .groupBy("partition")
        .agg(
            f.min("offset").alias("lowest"),
            f.max("offset").alias("highest"),
            f.count(f.lit(1)).alias("rows"),
            f.countDistinct("offset").alias("offsets"),
        )
        .collect()
    )
    return {row["partition"]: Held(row["lowest"], row["highest"], row["rows"], row["offsets"]) for row in rows}


def _watermarks(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """Partition → first offset that is there, and next one."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": settings.bootstrap_servers, "group.id": "marketflow-reset", "enable.auto.commit": False}
    )
    try:
        found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {one: consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=10) for one in found}
    finally:
        consumer.close()


class _Files:
    """Hadoop's file system, as Spark's checkpoints use it: a local folder or S3."""

    def __init__(self, spark: SparkSession, address: str) -> None:
        self._path = spark._jvm.org.apache.hadoop.fs.Path
        self._files = self._path(address).getFileSystem(spark._jsc.hadoopConfiguration())

    def holds_any(self, folder: str) -> bool:
        """Whether a folder is there with a file in it."""
        path = self._path(folder)
        return bool(self._files.exists(path)) and bool(len(self._files.listStatus(path)))

    def text(self, file: str) -> str | None:
        """A file's text; None where it is not there."""
        path = self._path(file)
        if not self._files.exists(path):
            return None
        stream = self._files.open(path)
        try:
            return bytes(stream.readAllBytes()).decode()
        finally:
            stream.close()

    def write(self, file: str, text: str) -> None:
        """Write a file anew, with the folders above it."""
        stream = self._files.create(self._path(file), True)
        try:
            stream.write(bytearray(text.encode()))
        finally:
            stream.close()

    def move(self, folder: str, to: str) -> bool:
        """Rename a folder; False where it is not there."""
        source, target = self._path(folder), self._path(to)
        if not self._files.exists(source):
            return False
        self._files.mkdirs(target.getParent())
        if not self._files.rename(source, target):
            raise LakeStateError(f"{folder} could not be put aside as {to}; nothing was changed there")
        return True
