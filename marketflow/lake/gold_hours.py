"""Hours as gold counts them: aware, UTC, floored; as runs, as text in snapshot summaries, as Spark columns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as f

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECONDS_PER_HOUR = 3_600_000_000
# above this many separate ranges a filter is one range from the first to the last: pruning less beats planning more
_MAX_RANGES = 64


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """Whole hours next to each other: [start, end)."""

    start: datetime
    end: datetime


def floor(moment: datetime) -> datetime:
    """Start of the UTC hour that holds this aware moment."""
    return EPOCH + (moment - EPOCH) // HOUR * HOUR


def moment(microseconds: int) -> datetime:
    """The time that many microseconds after the epoch."""
    return EPOCH + timedelta(microseconds=microseconds)


def number(hour: datetime) -> int:
    """Hours since the epoch: what `number_column` gives inside Spark."""
    return (hour - EPOCH) // HOUR


def from_number(value: int) -> datetime:
    """The hour of a number."""
    return EPOCH + value * HOUR


def between(start: datetime, end: datetime) -> list[datetime]:
    """Every hour that overlaps [start, end)."""
    first = floor(start)
    return [first + i * HOUR for i in range(max(0, -((first - end) // HOUR)))]


def day_of(hour: datetime) -> datetime:
    """Midnight of the hour's UTC day."""
    return EPOCH + (hour - EPOCH) // DAY * DAY


def runs(hours: Iterable[datetime], *, longest: timedelta | None = None) -> list[Run]:
    """Neighbouring hours joined, in order; none longer than `longest`."""
    found: list[Run] = []
    for hour in sorted(set(hours)):
        last = found[-1] if found else None
        if last and last.end == hour and (longest is None or hour + HOUR - last.start <= longest):
            found[-1] = Run(last.start, hour + HOUR)
        else:
            found.append(Run(hour, hour + HOUR))
    return found


def to_json(hours: Iterable[datetime]) -> str:
    """The `marketflow.hours` property: a JSON list of ISO times."""
    return json.dumps([hour.isoformat() for hour in sorted(hours)])


def parse(text: str) -> datetime:
    """An ISO hour, UTC where it names no zone; ValueError where it is not a whole hour."""
    moment = datetime.fromisoformat(text)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if floor(moment) != moment:
        raise ValueError(f"{text} is not a whole hour, e.g. 2026-11-21T10:00:00Z")
    return moment


def from_json(text: str) -> list[datetime]:
    """The hours of a `marketflow.hours` property."""
    return [parse(item) for item in json.loads(text)]


def number_column(column: str) -> Column:
    """Hours since the epoch of a timestamp column, as bigint."""
    return f.floor(f.unix_micros(f.col(column)) / f.lit(MICROSECONDS_PER_HOUR)).cast("bigint")


def inside(column: str, ranges: Iterable[Run]) -> Column:
    """Whether a timestamp column lies in one of the ranges; simple comparisons, which Iceberg prunes files by."""
    asked = list(ranges)
    if not asked:
        return f.lit(False)
    conditions = [(f.col(column) >= f.lit(run.start)) & (f.col(column) < f.lit(run.end)) for run in asked]
    return reduce(lambda left, right: left | right, conditions)


def prune(column: str, ranges: Iterable[Run]) -> Column:
    """A superset of `inside` that stays short: one range where there are many."""
    asked = sorted(ranges)
    if len(asked) > _MAX_RANGES:
        asked = [Run(asked[0].start, max(run.end for run in asked))]
    return inside(column, asked)
