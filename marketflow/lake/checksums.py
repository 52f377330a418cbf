"""Whether two snapshots of a table hold the same rows: their number and a checksum, partition by partition.

The checksum is the sum of every row's 64-bit hash over all columns. A sum does not depend on the order of the rows nor
on the files they lie in, which is all that compaction may change; a row that is lost, doubled or altered changes it.
Spark's hash passes over nulls, so that a value that slipped into the column beside it would go unseen: whether a column
is null is therefore hashed too. Zeros of both signs are one number to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as f

# as a snapshot's metadata give them: the values of the partition's fields, in the order of the contract's transforms
PartitionValues = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Checksum:
    """Rows, and the sum of their hashes. Checksums of two sets of rows add up to that of both."""

    rows: int = 0
    total: int = 0

    def __add__(self, other: Checksum) -> Checksum:
        return Checksum(self.rows + other.rows, self.total + other.total)

    def __str__(self) -> str:
        return f"{self.rows} rows with checksum {self.total % 2**64:016x}"


def by_partition(spark: SparkSession, name: str, snapshot_id: int, condition: str) -> dict[PartitionValues, Checksum]:
    """Of the rows of one snapshot for which the condition holds; a partition without such rows is left out.

    An old snapshot is read with the columns it had. What the table has got since then is null in it, and is hashed as
    such, in the type of today.
    """
    rows = spark.read.option("versionAsOf", snapshot_id).table(name)
    had = set(rows.columns)
    columns = [
        (f.col(f"`{field.name}`") if field.name in had else f.lit(None)).cast(field.dataType)
        for field in spark.table(name).schema.fields
    ]
    partition = rows.metadataColumn("_partition").alias("partition")
    found = rows.where(condition).groupBy(partition).agg(*_sums(columns)).collect()
    return {tuple(row.partition): Checksum(row.row_count, int(row.total)) for row in found}


def of_rows(rows: DataFrame) -> Checksum:
    """Of all rows of a frame."""
    found = rows.agg(*_sums([f.col(f"`{name}`") for name in rows.columns])).first()
    return Checksum(found.row_count, int(found.total or 0)) if found else Checksum()


def _sums(columns: list[Column]) -> tuple[Column, Column]:
    hashed = f.xxhash64(*columns, *(column.isNull() for column in columns))
    # a long would overflow: 2^63 times ten thousand million rows fit into 30 digits
    return f.count(f.lit(1)).alias("row_count"), f.sum(hashed.cast("decimal(20,0)")).alias("total")
