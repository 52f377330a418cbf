"""gold.bars from silver.trades: which hours a touched hour reaches, an hour's rows, and a day's from its hours'."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.gold import BAR_INTERVALS_S, BARS
from marketflow.features import frames
from marketflow.features.bars import bars, folded
from marketflow.lake import gold_hours, gold_neighbours
from marketflow.lake.gold_hours import DAY, HOUR, Run
from marketflow.lake.gold_marks import Changes
from marketflow.lake.gold_neighbours import Context, Stretch
from marketflow.lake.gold_write import DayRows
from marketflow.settings import Settings

# hours of one product that one worker holds at a time: a million trades at 50 a second
_LONGEST_RUN = 6 * HOUR
_HOURLY = [interval for interval, seconds in BAR_INTERVALS_S.items() if seconds <= HOUR.total_seconds()]
_TRADE_COLUMNS = ("venue", "product_id", "trade_id", "price", "size", "notional", "taker_side", "event_ts")


def reached(spark: SparkSession, settings: Settings, name: str, trades: DataFrame, changes: Changes) -> set[datetime]:
    """Hours whose bars the changes may alter.

    From the hour of the last trade before each touched hour to that of the first after it: the empty bars and the
    holes between them change too.
    """
    known = gold_neighbours.extents(spark, name)
    if changes.everything:
        return {hour for extent in known.values() for hour in gold_hours.between(extent.first, _past(extent.last))}
    asked = [
        Stretch(venue, product_id, run)
        for venue, product_id in known
        for run in gold_hours.runs(changes.touched.get(product_id, ()))
    ]
    found = gold_neighbours.contexts(spark, trades, known, asked)
    between = (gold_hours.between(context.first, _past(context.last)) for context in found.values())
    return changes.hours.union(*between)


def rows(
    spark: SparkSession,
    settings: Settings,
    name: str,
    trades: DataFrame,
    hours: list[datetime],
    complete_through: datetime | None,
) -> DataFrame:
    """Bars of all products in these hours, of every interval within one, computed by the kernel in Spark's workers."""
    known = gold_neighbours.extents(spark, name)
    asked = [
        Stretch(venue, product_id, run)
        for (venue, product_id), extent in known.items()
        for run in gold_hours.runs(hours, longest=_LONGEST_RUN)
        if run.start <= extent.last and extent.first < run.end
    ]
    contexts = gold_neighbours.contexts(spark, trades, known, asked)

    def bars_of_window(window: pa.Table) -> pa.Table:
        return bars_of_run(window, complete_through)

    return (
        trades.select(*_TRADE_COLUMNS, gold_hours.number_column("event_ts").alias("hour_number"))
        .where(f.col("product_id").isin({stretch.product_id for stretch in asked}))
        .where(gold_hours.prune("event_ts", [Run(c.first, _past(c.last)) for c in contexts.values()]))
        .join(f.broadcast(_windows(spark, contexts)), ["venue", "product_id", "hour_number"])
        .where((f.col("event_ts") >= f.col("read_first")) & (f.col("event_ts") <= f.col("read_last")))
        .groupBy("venue", "product_id", "run_start")
        .applyInArrow(bars_of_window, BARS.spark_schema)
    )


def bars_of_run(window: pa.Table, complete_through: datetime | None) -> pa.Table:
    """Bars of one product's run of hours; `window` carries its context and the run's borders."""
    trades = pl.DataFrame(pl.from_arrow(window))
    start, end = trades.item(0, "run_start"), trades.item(0, "run_end")
    parts = [
        bars(trades, interval=interval, start=start, end=end, complete_through=complete_through) for interval in _HOURLY
    ]
    return frames.to_arrow(pl.concat(parts), BARS)


def day_rows(
    spark: SparkSession, name: str, hour_rows: DataFrame, hours: list[datetime], *, stale: Collection[datetime]
) -> DayRows:
    """Bars of the hours' days, folded from their hourly bars: the new ones, and of other hours the stored ones.

    A day with an hour whose stored rows may not hold what silver holds (`stale`) is left to the commit that writes it.
    docs/decisions/0012-day-bars.md says why days are not read anew.
    """
    new = set(hours)
    touched = sorted({gold_hours.day_of(hour) for hour in hours})
    days = [day for day in touched if new.issuperset(set(gold_hours.between(day, day + DAY)).intersection(stale))]
    whole = {hour for day in days for hour in gold_hours.between(day, day + DAY)}
    parts = [
        rows.where(f.col("interval") == "1h").where(gold_hours.inside("open_ts", gold_hours.runs(asked)))
        for rows, asked in ((hour_rows, whole & new), (spark.table(name), whole - new))
    ]
    known = pl.concat([frames.conform(pl.DataFrame(pl.from_arrow(part.toArrow())), BARS) for part in parts])
    rows = spark.createDataFrame(frames.to_arrow(folded(known, "1d"), BARS), BARS.spark_schema)
    return DayRows("interval", "1d", days, rows)


def _windows(spark: SparkSession, contexts: dict[Stretch, Context]) -> DataFrame:
    """A row per stretch and hour of its context, so that trades find their stretches by equality."""
    listed = [
        (
            stretch.venue,
            stretch.product_id,
            gold_hours.number(hour),
            stretch.run.start,
            stretch.run.end,
            c.first,
            c.last,
        )
        for stretch, c in contexts.items()
        for hour in gold_hours.between(c.first, _past(c.last))
    ]
    return spark.createDataFrame(
        listed,
        "venue string, product_id string, hour_number bigint, run_start timestamp, run_end timestamp, "
        "read_first timestamp, read_last timestamp",
    )


def _past(moment: datetime) -> datetime:
    return moment + timedelta(microseconds=1)
