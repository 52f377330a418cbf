"""gold.product_day from gold.bars: the days that changed bars reach, and the rows of those that have ended."""

from __future__ import annotations

from datetime import datetime

import polars as pl
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.gold import BARS, PRODUCT_DAY
from marketflow.features import frames
from marketflow.features.days import INTERVALS, product_days
from marketflow.lake import gold_hours, gold_write
from marketflow.lake.gold_hours import DAY, Run
from marketflow.lake.gold_marks import Changes
from marketflow.settings import Settings

# days that the driver holds at a time: two thousand bars a product and day
_AT_ONCE = 31


def reached(spark: SparkSession, settings: Settings, name: str, bars: DataFrame, changes: Changes) -> set[datetime]:
    """Days (their midnights) with a changed bar."""
    if changes.everything:
        held = gold_write.files_hours(spark, name, "open_ts")
        return {gold_hours.day_of(hour) for hours in held for hour in hours}
    return {gold_hours.day_of(hour) for hour in changes.hours}


def rows(
    spark: SparkSession,
    settings: Settings,
    name: str,
    bars: DataFrame,
    hours: list[datetime],
    complete_through: datetime | None,
) -> DataFrame:
    """Rows of the days of these hours that had ended by `complete_through`."""
    days = sorted({gold_hours.day_of(hour) for hour in hours})
    ended = [day for day in days if complete_through is not None and day + DAY <= complete_through]
    parts = [frames.empty(PRODUCT_DAY)]
    for first in range(0, len(ended), _AT_ONCE):
        asked = [Run(day, day + DAY) for day in ended[first : first + _AT_ONCE]]
        held = bars.where(f.col("interval").isin(*INTERVALS)).where(gold_hours.inside("open_ts", asked)).toArrow()
        parts.append(product_days(frames.conform(pl.DataFrame(pl.from_arrow(held)), BARS)))
    return spark.createDataFrame(frames.to_arrow(pl.concat(parts), PRODUCT_DAY), PRODUCT_DAY.spark_schema)
