"""gold.trade_features from silver.trades and silver.quotes: files that Spark's workers write, an hour each.

A worker holds the trades and quotes of one product's hour with what lies around them, runs the kernel chunk by chunk
and writes one Parquet file; the driver commits the files (`gold_files`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.sources import CCXT_AFTER, CCXT_PREFIX
from marketflow.features import frames, offline
from marketflow.features.trades.tape import HORIZON, LOOKBACK, QUOTE_COLUMNS, QUOTES_BACK, TRADE_COLUMNS
from marketflow.lake import gold_hours, gold_neighbours, gold_reach
from marketflow.lake.gold_hours import HOUR
from marketflow.lake.gold_marks import Changes
from marketflow.lake.gold_neighbours import DISORDER, Stretch
from marketflow.lake.parquet_files import ParquetFolder
from marketflow.settings import Settings

_MOST_LISTED = 20_000
_WRITTEN = "venue string, product_id string, hour timestamp, path string, trades bigint, rows bigint, left_out bigint"


@dataclass(frozen=True, slots=True)
class Written:
    """One product's hour: its file (None where it has no row) and what became of its trades."""

    venue: str
    product_id: str
    hour: datetime
    path: str | None
    trades: int
    rows: int
    left_out: int


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
    before = gold_reach.before(spark, trades, known, asked, HORIZON)
    after = gold_reach.after(spark, trades, known, asked, LOOKBACK)
    between = (gold_hours.between(min(before[each], each.run.start), max(after[each], each.run.end)) for each in asked)
    return changes.hours.union(*between)


def reached_by_quotes(changes: Changes) -> set[datetime]:
    """Hours with trades that may see a changed quote."""
    return {
        reached for hour in changes.hours for reached in gold_hours.between(hour - DISORDER, hour + HOUR + QUOTES_BACK)
    }


def write(
    spark: SparkSession, settings: Settings, name: str, trades: DataFrame, quotes: DataFrame, hours: list[datetime]
) -> list[Written]:
    """Compute and write these hours of every product; nothing is committed."""
    known = _numbered(gold_neighbours.extents(spark, name))
    asked = [
        Stretch(venue, product_id, gold_hours.Run(hour, hour + HOUR))
        for venue, product_id, hour in _traded(trades, hours)
        if (venue, product_id) in known
    ]
    if not asked:
        return []
    before = gold_reach.before(spark, trades, known, asked, LOOKBACK)
    after = gold_reach.after(spark, trades, known, asked, HORIZON)
    tape = {each: (min(before[each], each.run.start), max(after[each], each.run.end)) for each in asked}
    book = {each: (each.run.start - QUOTES_BACK, each.run.end + DISORDER) for each in asked}
    keys = ("venue", "product_id", "run_start")
    computed = (
        _inside(spark, trades, TRADE_COLUMNS, tape)
        .groupBy(*keys)
        .cogroup(_inside(spark, quotes, QUOTE_COLUMNS, book).groupBy(*keys))
        .applyInArrow(_worker(settings), _WRITTEN)
        .collect()
    )
    return [Written(*row) for row in computed]


def _traded(trades: DataFrame, hours: list[datetime]) -> list[tuple[str, str, datetime]]:
    """Venue, product and hour of those asked for in which anything was traded: between two captures lie years."""
    wanted = set(hours)
    rows = (
        trades.where(gold_hours.prune("event_ts", gold_hours.runs(hours)))
        .select("venue", "product_id", gold_hours.number_column("event_ts").alias("hour_number"))
        .distinct()
        .collect()
    )
    found = ((row.venue, row.product_id, gold_hours.from_number(row.hour_number)) for row in rows)
    return sorted(each for each in found if each[2] in wanted)


def _numbered(known: dict[Any, Any]) -> dict[Any, Any]:
    """Without the venues that do not number their trades one by one: a missing trade cannot be seen there."""
    return {market: extent for market, extent in known.items() if not CCXT_PREFIX <= market[0] < CCXT_AFTER}


def _inside(
    spark: SparkSession, rows: DataFrame, columns: tuple[str, ...], windows: dict[Stretch, tuple[datetime, datetime]]
) -> DataFrame:
    """Rows in the window of a stretch, once for each stretch whose window holds them."""
    spans = {each: _hours(*window) for each, window in windows.items()}
    # a row for each hour of each window, or for several hours where a product slept for years between two trades
    grain = 1 + sum(map(len, spans.values())) // _MOST_LISTED
    listed = [
        (each.venue, each.product_id, number, each.run.start, *windows[each])
        for each, hours in spans.items()
        for number in range(hours.start // grain, (hours.stop - 1) // grain + 1)
    ]
    wanted = spark.createDataFrame(
        listed,
        "venue string, product_id string, hour_number bigint, run_start timestamp, read_first timestamp, "
        "read_last timestamp",
    )
    ranges = [gold_hours.Run(first, last + timedelta(microseconds=1)) for first, last in windows.values()]
    return (
        rows.select(*columns, f.floor(gold_hours.number_column("event_ts") / grain).cast("bigint").alias("hour_number"))
        .where(f.col("product_id").isin({each.product_id for each in windows}))
        .where(gold_hours.prune("event_ts", ranges))
        .join(f.broadcast(wanted), ["venue", "product_id", "hour_number"])
        .where((f.col("event_ts") >= f.col("read_first")) & (f.col("event_ts") <= f.col("read_last")))
        .select(*columns, "run_start")
    )


def _hours(first: datetime, last: datetime) -> range:
    """Numbers of the hours that two times, both inclusive, lie in and between."""
    return range(gold_hours.number(gold_hours.floor(first)), gold_hours.number(gold_hours.floor(last)) + 1)


def _worker(settings: Settings) -> Callable[[pa.Table, pa.Table], pa.Table]:
    folder = ParquetFolder.of(settings, TRADE_FEATURES)

    def written(trades: pa.Table, quotes: pa.Table) -> pa.Table:
        tape, book = pl.DataFrame(pl.from_arrow(trades)), pl.DataFrame(pl.from_arrow(quotes))
        return write_hour(folder, tape, book)

    return written


def write_hour(folder: ParquetFolder, tape: pl.DataFrame, book: pl.DataFrame) -> pa.Table:
    """One product's hour into one file; a row that says what became of its trades, none where it has no trade."""
    if tape.is_empty():
        return _said([])
    start = tape.item(0, "run_start")
    is_own = pl.col("event_ts").is_between(start, start + HOUR, closed="left")
    counted = {"trades": 0, "rows": 0}

    def parts() -> Iterator[pa.Table]:
        for rows in offline.chunks(tape, book):
            own = rows.filter(is_own)
            kept = own.filter(pl.col("history") >= LOOKBACK)
            counted["trades"] += own.height
            counted["rows"] += kept.height
            if kept.height:
                yield frames.to_arrow(kept, TRADE_FEATURES)

    venue, product_id = tape.item(0, "venue"), tape.item(0, "product_id")
    name = f"{product_id}/{start:%Y-%m-%dT%H}-{venue}-{uuid4().hex}.parquet"
    path = folder.write(name, parts())
    if not counted["trades"]:
        return _said([])
    left_out = counted["trades"] - counted["rows"]
    return _said([(venue, product_id, start, path, counted["trades"], counted["rows"], left_out)])


def _said(rows: list[tuple[Any, ...]]) -> pa.Table:
    kinds = (
        *(pa.string(), pa.string(), pa.timestamp("us", tz="UTC"), pa.string()),
        *(pa.int64(), pa.int64(), pa.int64()),
    )
    names = [part.split()[0] for part in _WRITTEN.split(", ")]
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pa.table({name: pa.array(values, kind) for name, values, kind in zip(names, columns, kinds, strict=True)})
