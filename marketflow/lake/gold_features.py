"""gold.trade_features from silver.trades and silver.quotes: files that Spark's workers write, an hour each.

A worker reads the trades and quotes of one product's hour with what lies around them, runs the kernel chunk by chunk
and writes one Parquet file; the driver commits the files (`gold_files`). A busy hour is several stretches, so that
every worker has one and none holds millions of trades.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.silver import QUOTES, TRADES
from marketflow.contracts.sources import CCXT_AFTER, CCXT_PREFIX
from marketflow.features import frames, offline
from marketflow.features.trades.tape import HORIZON, LOOKBACK, QUOTE_COLUMNS, QUOTES_BACK, TRADE_COLUMNS
from marketflow.lake import gold_hours, gold_neighbours, gold_reach
from marketflow.lake.gold_hours import HOUR, Run
from marketflow.lake.gold_marks import Changes
from marketflow.lake.gold_neighbours import DISORDER, Stretch
from marketflow.lake.parquet_files import ParquetFolder
from marketflow.lake.snapshot_rows import SnapshotRows
from marketflow.settings import Settings

# trades that one worker reads at a time, and those of them that the kernel holds and a row group has
_MOST_AT_ONCE = 200_000
_CHUNK = 100_000
# tasks beyond this many share one: each costs the driver a few milliseconds
_MOST_TASKS = 256
_TASK = (
    "task int, venue string, product_id string, start timestamp, end timestamp, "
    "read_first timestamp, read_last timestamp"
)
_COUNTS = ("trades", "rows", "later_quotes")
_WRITTEN = (
    "venue string, product_id string, start timestamp, path string, trades bigint, rows bigint, later_quotes bigint"
)


@dataclass(frozen=True, slots=True)
class Written:
    """One product's hour: its files (none where it has no row) and what became of its trades."""

    venue: str
    product_id: str
    hour: datetime
    paths: tuple[str, ...]
    trades: int
    rows: int
    later_quotes: int

    @property
    def left_out(self) -> int:
        """Trades without 500 before them."""
        return self.trades - self.rows


def reached(spark: SparkSession, settings: Settings, name: str, trades: DataFrame, changes: Changes) -> set[datetime]:
    """Hours whose rows changed trades may alter: those whose targets look at them, and those that look back at them."""
    known = _numbered(gold_neighbours.extents(spark, name))
    if changes.everything:
        return {
            hour for e in known.values() for hour in gold_hours.between(e.first, e.last + timedelta(microseconds=1))
        }
    asked = [
        Stretch(venue, product_id, run)
        for venue, product_id in known
        for run in gold_hours.runs(changes.touched.get(product_id, ()))
    ]
    around = gold_reach.around(spark, trades, known, asked, before=HORIZON, after=LOOKBACK)
    return changes.hours.union(*(gold_hours.between(*window) for window in around.values()))


def reached_by_quotes(changes: Changes) -> set[datetime]:
    """Hours with trades that may see a changed quote."""
    return {
        reached for hour in changes.hours for reached in gold_hours.between(hour - DISORDER, hour + HOUR + QUOTES_BACK)
    }


def write(
    spark: SparkSession,
    settings: Settings,
    name: str,
    trades: DataFrame,
    snapshots: tuple[int | None, int | None],
    hours: list[datetime],
) -> list[Written]:
    """Compute and write these hours of every product; nothing is committed.

    `trades` are silver's as of the first of the snapshots, the second is of silver.quotes.
    """
    known = _numbered(gold_neighbours.extents(spark, name))
    asked = [
        Stretch(venue, product_id, run)
        for (venue, product_id, hour), count in sorted(_traded(trades, hours).items())
        if (venue, product_id) in known
        for run in _parts(hour, count)
    ]
    if not asked:
        return []
    around = gold_reach.around(spark, trades, known, asked, before=LOOKBACK, after=HORIZON)
    count = min(len(asked), _MOST_TASKS)
    tasks = [
        (number % count, *each.market, each.run.start, each.run.end, *around[each]) for number, each in enumerate(asked)
    ]
    silver = [
        SnapshotRows.of(spark, settings, table, snapshot)
        for table, snapshot in zip((TRADES, QUOTES), snapshots, strict=True)
    ]
    written = (
        spark.createDataFrame(tasks, _TASK)
        .repartitionById(count, f.col("task"))
        .mapInArrow(_worker(settings, *silver), _WRITTEN)
        .toArrow()
    )
    return _by_hour(written.to_pylist())


def _traded(trades: DataFrame, hours: list[datetime]) -> dict[tuple[str, str, datetime], int]:
    """Trades by venue, product and hour of those asked for in which there are any: between two captures lie years."""
    wanted = set(hours)
    rows = (
        trades.where(gold_hours.prune("event_ts", gold_hours.runs(hours)))
        .groupBy("venue", "product_id", gold_hours.number_column("event_ts").alias("hour_number"))
        .agg(f.count(f.lit(1)).alias("trades"))
        .collect()
    )
    found = {(row.venue, row.product_id, gold_hours.from_number(row.hour_number)): row.trades for row in rows}
    return {key: count for key, count in found.items() if key[2] in wanted}


def _parts(hour: datetime, count: int) -> list[Run]:
    """The hour as so many equal stretches of time that a worker can hold each."""
    parts = -(-count // _MOST_AT_ONCE)
    borders = [hour + HOUR * number / parts for number in range(parts + 1)]
    return [Run(start, end) for start, end in pairwise(borders)]


def _numbered(known: dict[Any, Any]) -> dict[Any, Any]:
    """Without the venues that do not number their trades one by one: a missing trade cannot be seen there."""
    return {market: extent for market, extent in known.items() if not CCXT_PREFIX <= market[0] < CCXT_AFTER}


def _by_hour(stretches: Iterable[dict[str, Any]]) -> list[Written]:
    """What the stretches of each hour wrote, together."""
    found: dict[tuple[str, str, datetime], Written] = {}
    for each in stretches:
        key = (each["venue"], each["product_id"], gold_hours.floor(each["start"]))
        known = found.get(key, Written(*key, (), 0, 0, 0))
        paths = (*known.paths, each["path"]) if each["path"] else known.paths
        counts = (getattr(known, name) + each[name] for name in _COUNTS)
        found[key] = Written(*key, paths, *counts)
    return sorted(found.values(), key=lambda one: (one.venue, one.product_id, one.hour))


def _worker(
    settings: Settings, trades: SnapshotRows, quotes: SnapshotRows
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    folder = ParquetFolder.of(settings, TRADE_FEATURES)

    def written(tasks: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in tasks:
            for task in batch.to_pylist():
                market = (task["venue"], task["product_id"])
                run = Run(task["start"], task["end"])
                tape = trades.between(TRADE_COLUMNS, *market, task["read_first"], task["read_last"])
                book = quotes.between(QUOTE_COLUMNS, *market, run.start - QUOTES_BACK, run.end + DISORDER)
                yield write_stretch(folder, Stretch(*market, run), tape, book)

    return written


def write_stretch(folder: ParquetFolder, stretch: Stretch, tape: pl.DataFrame, book: pl.DataFrame) -> pa.RecordBatch:
    """A stretch of one product into one file; a row that says what became of its trades."""
    is_own = pl.col("event_ts").is_between(stretch.run.start, stretch.run.end, closed="left")
    counted = dict.fromkeys(_COUNTS, 0)

    def parts() -> Iterator[pa.Table]:
        for rows in offline.chunks(tape, book, _CHUNK):
            own = rows.filter(is_own)
            kept = own.filter(pl.col("history") >= LOOKBACK)
            counted["trades"] += own.height
            counted["rows"] += kept.height
            counted["later_quotes"] += int(own["quote_is_later"].sum())
            if kept.height:
                yield frames.to_arrow(kept, TRADE_FEATURES)

    start = stretch.run.start
    name = f"{stretch.product_id}/{start:%Y-%m-%dT%H%M}-{stretch.venue}-{uuid4().hex}.parquet"
    path = folder.write(name, parts())
    said = {
        "venue": pa.array([stretch.venue]),
        "product_id": pa.array([stretch.product_id]),
        "start": pa.array([start], pa.timestamp("us", tz="UTC")),
        "path": pa.array([path], pa.string()),
        **{name: pa.array([count], pa.int64()) for name, count in counted.items()},
    }
    return pa.RecordBatch.from_pydict(said)
