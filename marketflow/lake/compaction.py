"""Compaction of closed partitions: one file each, or files of 128 to 512 MB, judged before anybody can read them.

Iceberg's rewrite_data_files commits by itself, and what it commits is what readers get. So it commits to a branch that
nobody reads. There the rows of each partition are counted and summed (`checksums`) beside those of the snapshot that it
began from; only where both agree are the same files exchanged on the table itself, in one commit that fails where
another writer has taken away one of the files meanwhile. Rows appended meanwhile, as the stream does to bronze, stay.
The commit is a `replace` and carries no property: readers of increments pass over it (docs/decisions/0014-upkeep.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.errors import LakeStateError
from marketflow.lake import checksums, partitions, silver_snapshots
from marketflow.lake.checksums import Checksum
from marketflow.lake.partitions import Partition
from marketflow.lake.session import CATALOG

BRANCH = "marketflow_compaction"
_MB = 1024**2
# partitions that are judged and committed together: what an end in between loses, and what one difference keeps back
_AT_ONCE = 16
# between two deep runs a partition is left alone until it has as many files as this: Iceberg's own default
_HOURLY_FILES = 5


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a file of a partition that does not fit into one."""

    smallest: int = 128 * _MB
    target: int = 256 * _MB
    largest: int = 512 * _MB

    def files(self, size: int) -> int:
        """How many files so many bytes need at most."""
        return max(1, -(-size // self.target))


SIZES = Sizes()


@dataclass(frozen=True, slots=True)
class Compacted:
    """Partitions that were rewritten, and the rows they hold, the same before and after."""

    partitions: int = 0
    files_before: int = 0
    files_after: int = 0
    checksum: Checksum = field(default_factory=Checksum)

    def __add__(self, other: Compacted) -> Compacted:
        return Compacted(
            self.partitions + other.partitions,
            self.files_before + other.files_before,
            self.files_after + other.files_after,
            self.checksum + other.checksum,
        )


def compact(
    spark: SparkSession, name: str, table: Table, *, now: datetime, deep: bool, sizes: Sizes = SIZES
) -> Compacted:
    """Rewrite the closed partitions that need it; the caller holds the lock that keeps other maintenance away.

    Raises:
        LakeStateError: rows would have changed. That commit was not made; the table is as it was.
    """
    drop_branch(spark, name)
    asked = [
        partition
        for partition in partitions.stored(spark, name)
        if partitions.is_closed(table, partition.values, now) and _needs(partition, sizes, deep=deep)
    ]
    done = Compacted()
    for place in range(0, len(asked), _AT_ONCE):
        done += _compact_some(spark, name, table, asked[place : place + _AT_ONCE], sizes)
    return done


def drop_branch(spark: SparkSession, name: str) -> None:
    """Forget what a compaction that ended in between has left; its files go when its snapshot expires."""
    stored = silver_snapshots.java_table(spark, name)
    if stored.refs().containsKey(BRANCH):
        stored.manageSnapshots().removeBranch(BRANCH).commit()
        spark.catalog.refreshTable(name)


def _needs(partition: Partition, sizes: Sizes, *, deep: bool) -> bool:
    """Whether a partition has other files than it should.

    One file of at most the largest size is right, and so are files that are all of the right size. Files of one commit
    that are as few as they can be are compaction's own work: sizes after compression cannot be told beforehand, and
    to write them again would only give the same.
    """
    if partition.largest <= sizes.largest:
        if partition.files == 1 or partition.smallest >= sizes.smallest:
            return False
        if partition.commits == 1 and partition.files <= sizes.files(partition.size):
            return False
    return deep or partition.files >= _HOURLY_FILES


def _compact_some(spark: SparkSession, name: str, table: Table, some: Sequence[Partition], sizes: Sizes) -> Compacted:
    condition = partitions.condition(table, some)
    stored = silver_snapshots.java_table(spark, name)
    start = stored.currentSnapshot()
    stored.manageSnapshots().createBranch(BRANCH, start.snapshotId()).commit()
    try:
        rewrite_on_branch(spark, name, table, condition, sizes)
        stored = silver_snapshots.java_table(spark, name)
        head = stored.snapshot(BRANCH)
        checksum = _judge(spark, name, some, start, head, condition)
        before, after = _exchange(stored, start, head, name)
    finally:
        drop_branch(spark, name)
    return Compacted(len(some), before, after, checksum)


def rewrite_on_branch(spark: SparkSession, name: str, table: Table, condition: str, sizes: Sizes) -> None:
    """Write the partitions' files anew, in the table's order, and commit them to the branch."""
    options = {
        "rewrite-all": "true",
        "target-file-size-bytes": sizes.target,
        "min-file-size-bytes": sizes.smallest,
        "max-file-size-bytes": sizes.largest,
    }
    pairs = ", ".join(f"'{key}', '{value}'" for key, value in options.items())
    spark.sql(
        f"call {CATALOG}.system.rewrite_data_files(table => {partitions.literal(name)}, branch => '{BRANCH}', "
        f"strategy => '{'sort' if table.sort_order else 'binpack'}', where => {partitions.literal(condition)}, "
        f"options => map({pairs}))"
    ).collect()


def _judge(
    spark: SparkSession, name: str, some: Sequence[Partition], start: Any, head: Any, condition: str
) -> Checksum:
    """Compare both snapshots partition by partition; the sum of what they hold."""
    before = checksums.by_partition(spark, name, start.snapshotId(), condition)
    after = checksums.by_partition(spark, name, head.snapshotId(), condition)
    labels = {partition.values: partition.label for partition in some}
    for values in sorted(before.keys() | after.keys(), key=lambda values: labels.get(values, "")):
        one, other = before.get(values, Checksum()), after.get(values, Checksum())
        if one != other:
            raise LakeStateError(
                f"{name}, partition {labels.get(values, values)}: {one} before compaction and {other} after it; "
                "nothing was committed, the table is as it was"
            )
    one_total, other_total = (int(snapshot.summary().get("total-records")) for snapshot in (start, head))
    if one_total != other_total:
        raise LakeStateError(
            f"{name}: {one_total} rows before compaction and {other_total} after it, none of them in the partitions "
            f"{'; '.join(sorted(labels.values()))}; nothing was committed, the table is as it was"
        )
    return sum(before.values(), Checksum())


def _exchange(stored: Any, start: Any, head: Any, name: str) -> tuple[int, int]:
    """Put the branch's files into the table in place of those they were made of; how many of each."""
    if head.parentId() != start.snapshotId():
        raise LakeStateError(f"{name}: branch {BRANCH} is not one commit ahead of the table: somebody wrote to it")
    removed = list(_items(head.removedDataFiles(stored.io())))
    added = list(_items(head.addedDataFiles(stored.io())))
    exchange = stored.newRewrite().validateFromSnapshot(start.snapshotId())
    # rows keep their age, so that a delete that is younger than they are would still hold for them
    exchange.dataSequenceNumber(start.sequenceNumber())
    for file in removed:
        exchange.deleteFile(file)
    for file in added:
        exchange.addFile(file)
    exchange.commit()
    return len(removed), len(added)


def _items(iterable: Any) -> Iterator[Any]:
    """What a Java Iterable holds."""
    iterator = iterable.iterator()
    while iterator.hasNext():
        yield iterator.next()
