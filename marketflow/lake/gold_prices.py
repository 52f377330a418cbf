"""gold.price_metrics and gold.top_movers from silver.asset_prices: reach of a touched hour, and an hour's rows."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.gold import PRICE_METRICS, TOP_MOVERS
from marketflow.features import frames
from marketflow.features.movers import STALE_AFTER, top_movers
from marketflow.features.prices import LOOKBACK_S, price_metrics
from marketflow.lake import gold_hours
from marketflow.lake.gold_hours import HOUR, Run
from marketflow.lake.gold_marks import Changes
from marketflow.settings import Settings

LOOKBACK = timedelta(seconds=LOOKBACK_S)
# a snapshot ranks observations up to STALE_AFTER old, and their measures look LOOKBACK further
MOVERS_LOOKBACK = LOOKBACK + STALE_AFTER
# a market's observations that one worker holds at a time: 100 assets every 30 s are 72,000
_LONGEST_RUN = 6 * HOUR
_COLUMNS = (
    *("source", "asset_id", "vs_currency", "last_updated", "symbol", "name", "price", "market_cap"),
    *("market_cap_rank", "volume_24h", "polled_at", "poll_id", "poll_started_at"),
)


def metrics_reached(
    spark: SparkSession, settings: Settings, name: str, prices: DataFrame, changes: Changes
) -> set[datetime]:
    """Touched hours, and the next where it holds observations: a row looks back 1,236 s, less than an hour."""
    if changes.everything:
        return _hours_of(prices, "last_updated")
    after = {hour + HOUR for hour in changes.hours} - changes.hours
    return changes.hours | _hours_of(
        prices.where(gold_hours.prune("last_updated", gold_hours.runs(after))), "last_updated", after
    )


def movers_reached(
    spark: SparkSession, settings: Settings, name: str, prices: DataFrame, changes: Changes
) -> set[datetime]:
    """Hours of the polls that brought observations of the touched hours, and of polls in those hours and the next.

    A poll may bring an observation that is hours old; its snapshot lies in the poll's hour, not the observation's.
    """
    if changes.everything:
        return _hours_of(prices, "poll_started_at")
    touched = gold_hours.runs(changes.hours)
    near = gold_hours.runs(changes.hours | {hour + HOUR for hour in changes.hours})
    polled = prices.where(gold_hours.inside("last_updated", touched) | gold_hours.inside("poll_started_at", near))
    return _hours_of(polled, "poll_started_at")


def metrics_rows(
    spark: SparkSession,
    settings: Settings,
    name: str,
    prices: DataFrame,
    hours: list[datetime],
    complete_through: datetime | None,
) -> DataFrame:
    """Measures of every observation in these hours."""
    tolerance_s = settings.change_tolerance_s
    runs = gold_hours.runs(hours, longest=_LONGEST_RUN)

    def metrics_of_market(window: pa.Table) -> pa.Table:
        return metrics_of_run(window, tolerance_s)

    return (
        _by_observation(spark, prices, runs, LOOKBACK)
        .groupBy("source", "vs_currency", "run_start")
        .applyInArrow(metrics_of_market, PRICE_METRICS.spark_schema)
    )


def movers_rows(
    spark: SparkSession,
    settings: Settings,
    name: str,
    prices: DataFrame,
    hours: list[datetime],
    complete_through: datetime | None,
) -> DataFrame:
    """The ranking as of every poll that began in these hours."""
    tolerance_s, per_direction = settings.change_tolerance_s, settings.movers_per_direction
    runs = gold_hours.runs(hours, longest=_LONGEST_RUN)
    recent = _by_observation(spark, prices, runs, MOVERS_LOOKBACK)
    # what a poll of these hours brought, however old: its snapshot exists, though it cannot rank there
    windows = _windows(spark, runs, timedelta(0))
    stale = (
        prices.select(*_COLUMNS, gold_hours.number_column("poll_started_at").alias("hour_number"))
        .where(gold_hours.prune("poll_started_at", runs))
        .join(f.broadcast(windows), "hour_number")
        .where(
            (f.col("last_updated") < f.col("run_start") - MOVERS_LOOKBACK) | (f.col("last_updated") >= f.col("run_end"))
        )
    )

    def movers_of_market(window: pa.Table) -> pa.Table:
        return movers_of_run(window, tolerance_s, per_direction)

    return (
        recent.unionByName(stale)
        .groupBy("source", "vs_currency", "run_start")
        .applyInArrow(movers_of_market, TOP_MOVERS.spark_schema)
    )


def metrics_of_run(window: pa.Table, tolerance_s: int) -> pa.Table:
    """Metrics of one market's run of hours, context cut off."""
    observations, start, end = _opened(window)
    metrics = price_metrics(observations, tolerance_s=tolerance_s)
    return frames.to_arrow(metrics.filter(pl.col("ts").is_between(start, end, closed="left")), PRICE_METRICS)


def movers_of_run(window: pa.Table, tolerance_s: int, per_direction: int) -> pa.Table:
    """Rankings of one market's run of hours, those of the context's polls cut off."""
    observations, start, end = _opened(window)
    metrics = price_metrics(observations, tolerance_s=tolerance_s)
    movers = top_movers(metrics, observations, per_direction=per_direction)
    return frames.to_arrow(movers.filter(pl.col("snapshot_ts").is_between(start, end, closed="left")), TOP_MOVERS)


def _opened(window: pa.Table) -> tuple[pl.DataFrame, datetime, datetime]:
    frame = pl.DataFrame(pl.from_arrow(window))
    return frame.select(_COLUMNS), frame.item(0, "run_start"), frame.item(0, "run_end")


def _by_observation(spark: SparkSession, prices: DataFrame, runs: list[Run], lookback: timedelta) -> DataFrame:
    """Observations in each run and the lookback before it, once per run that needs them."""
    return (
        prices.select(*_COLUMNS, gold_hours.number_column("last_updated").alias("hour_number"))
        .where(gold_hours.prune("last_updated", [Run(run.start - lookback, run.end) for run in runs]))
        .join(f.broadcast(_windows(spark, runs, lookback)), "hour_number")
        .where((f.col("last_updated") >= f.col("run_start") - lookback) & (f.col("last_updated") < f.col("run_end")))
    )


def _windows(spark: SparkSession, runs: list[Run], lookback: timedelta) -> DataFrame:
    listed = [
        (gold_hours.number(hour), run.start, run.end)
        for run in runs
        for hour in gold_hours.between(run.start - lookback, run.end)
    ]
    return spark.createDataFrame(listed, "hour_number bigint, run_start timestamp, run_end timestamp")


def _hours_of(rows: DataFrame, column: str, among: set[datetime] | None = None) -> set[datetime]:
    found = rows.select(gold_hours.number_column(column).alias("hour_number")).distinct().collect()
    hours = {gold_hours.from_number(row.hour_number) for row in found}
    return hours if among is None else hours & among
