"""Partitions of a lake table as its metadata have them: which are closed, how to ask for one, what files it has."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.errors import LakeStateError
from marketflow.lake.checksums import PartitionValues

# bronze has no lock: the stream is never met where an hour has been over for as long as this
BRONZE_CLOSED_FOR = timedelta(hours=2)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BY_TIME = re.compile(r"(hours|days)\((\w+)\)")
_LONG = {"hours": timedelta(hours=1), "days": timedelta(days=1)}


@dataclass(frozen=True, slots=True)
class Partition:
    """The data files of one partition: how many, their bytes, and of how many commits they are."""

    values: PartitionValues
    label: str
    files: int
    size: int
    smallest: int
    largest: int
    commits: int


def stored(spark: SparkSession, name: str) -> list[Partition]:
    """Every partition of the current snapshot that has files, from metadata alone."""
    spark.catalog.refreshTable(name)
    rows = spark.sql(
        "select data_file.partition, count(*) as files, sum(data_file.file_size_in_bytes) as size, "  # noqa: S608 - our own table name
        "min(data_file.file_size_in_bytes) as smallest, max(data_file.file_size_in_bytes) as largest, "
        f"count(distinct snapshot_id) as commits from {name}.entries where status < 2 and data_file.content = 0 "
        "group by data_file.partition"
    ).collect()
    found = [
        Partition(
            tuple(row.partition), label(row.partition), row.files, row["size"], row.smallest, row.largest, row.commits
        )
        for row in rows
    ]
    return sorted(found, key=lambda partition: partition.label)


def label(partition: Any) -> str:
    """`product_id=BTC-USD, event_ts_day=2026-03-10`; of hours the hour, not its number."""
    parts = partition.asDict()
    texts = {
        name: f"{_EPOCH + value * _LONG['hours']:%Y-%m-%dT%H}"
        if name.endswith("_hour") and value is not None
        else value
        for name, value in parts.items()
    }
    return ", ".join(f"{name}={value}" for name, value in texts.items())


def is_closed(table: Table, values: PartitionValues, now: datetime) -> bool:
    """Whether no writer comes to this partition as a rule: its hour has been over for two hours, its day is over.

    A partition without time is closed whenever its table's lock is held.
    """
    for transform, value in zip(table.partitioning, values, strict=True):
        found = _BY_TIME.fullmatch(transform)
        if found:
            return value is not None and _bounds(found[1], value)[1] <= _border(found[1], now)
    return True


def closed_condition(table: Table, now: datetime) -> str:
    """SQL that is true for the rows of the partitions that are closed.

    Raises:
        LakeStateError: a bronze table has no partition by time. Nothing of it could ever be closed.
    """
    for transform in table.partitioning:
        found = _BY_TIME.fullmatch(transform)
        if found:
            return f"`{found[2]}` < {literal(_border(found[1], now))}"
    if table.layer == "bronze":
        raise LakeStateError(f"{table.qualified} has no partition by time to close, and the stream writes to it")
    return "true"


def condition(table: Table, partitions: Iterable[Partition]) -> str:
    """SQL that is true for the rows of these partitions and of no other; Iceberg reads no other's files for it."""
    return " or ".join(f"({_one(table, partition.values)})" for partition in partitions)


def literal(value: str | datetime) -> str:
    """A text or a time as Spark SQL spells it."""
    if isinstance(value, datetime):
        return f"timestamp '{value.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _one(table: Table, values: PartitionValues) -> str:
    asked = []
    for transform, value in zip(table.partitioning, values, strict=True):
        found = _BY_TIME.fullmatch(transform)
        if value is None:
            asked.append(f"`{found[2] if found else transform}` is null")
        elif found:
            start, end = _bounds(found[1], value)
            asked.append(f"`{found[2]}` >= {literal(start)} and `{found[2]}` < {literal(end)}")
        else:
            asked.append(f"`{transform}` = {literal(str(value))}")
    return " and ".join(asked)


def _bounds(unit: str, value: int | date) -> tuple[datetime, datetime]:
    """[start, end) of a partition: hours are numbered from the epoch, days are dates."""
    start = datetime.combine(value, time(), UTC) if isinstance(value, date) else _EPOCH + value * _LONG[unit]
    return start, start + _LONG[unit]


def _border(unit: str, now: datetime) -> datetime:
    """Before this everything is closed."""
    if unit == "hours":
        return (now - BRONZE_CLOSED_FOR).replace(minute=0, second=0, microsecond=0)
    return now.replace(hour=0, minute=0, second=0, microsecond=0)
