"""Replacing whole hours of a gold table atomically: one commit, files that each lie in one hour (or one whole day).

Iceberg's overwrite by filter drops whole data files, so no file may straddle the filter's border. Rows are therefore
written one file an hour, or one a day where all hours of a day are written. Where a file does straddle (compaction
merged a day), its whole day is replaced: the day's other rows are read and written back in the same commit.

Rows of whole days lie in partitions of their own, so they are replaced by day in the same commit, beside the hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.columns import Table
from marketflow.lake import gold_hours
from marketflow.lake.gold_hours import DAY
from marketflow.lake.snapshots import PROPERTY_PREFIX


@dataclass(frozen=True, slots=True)
class DayRows:
    """Rows of whole days: those of `days`, and the values of the identity partition `column` that sets them apart."""

    column: str
    value: str
    days: list[datetime]
    rows: DataFrame


def replace(
    spark: SparkSession,
    name: str,
    table: Table,
    rows: DataFrame,
    hours: list[datetime],
    properties: Mapping[str, str],
    beside: DayRows | None = None,
) -> None:
    """Replace `hours` of the Iceberg table `name` by those of `rows` that lie in them. Hours left empty are emptied.

    With `beside`, its days are replaced too, and the hours are those of the table's other rows.
    """
    assert table.hour_column
    asked = set(hours)
    hourly = f.lit(True) if beside is None else f.col(beside.column) != beside.value
    days = _straddled_days(spark, name, table.hour_column, asked)
    written = asked.union(*(gold_hours.between(day, day + DAY) for day in days))
    if kept := sorted(written - asked):
        stored = spark.table(name).where(gold_hours.inside(table.hour_column, gold_hours.runs(kept)) & hourly)
        rows = rows.where(gold_hours.inside(table.hour_column, gold_hours.runs(asked))).unionByName(stored)
    placed = _one_unit_a_task(spark, table, rows, written)
    replaced = gold_hours.inside(table.hour_column, gold_hours.runs(written))
    if beside is not None:
        placed = placed.unionByName(beside.rows.select(*table.column_names).coalesce(1))
        days = f.col(table.hour_column).isin(beside.days) if beside.days else f.lit(False)
        replaced = (replaced & hourly) | ((f.col(beside.column) == beside.value) & days)
    writer = placed.writeTo(name)
    for key, value in properties.items():
        writer = writer.option(f"snapshot-property.{PROPERTY_PREFIX}{key}", value)
    writer.overwrite(replaced)


def mark_only(spark: SparkSession, name: str, table: Table, properties: Mapping[str, str]) -> None:
    """A commit without rows that carries `properties`."""
    writer = spark.createDataFrame([], table.spark_schema).writeTo(name)
    for key, value in properties.items():
        writer = writer.option(f"snapshot-property.{PROPERTY_PREFIX}{key}", value)
    writer.append()


def files_hours(spark: SparkSession, name: str, column: str) -> list[list[datetime]]:
    """For each data file the hours that its bounds span, from metadata alone."""
    bounds = f"readable_metrics.`{column}`"
    files = (
        spark.table(f"{name}.files")
        .select(
            f.unix_micros(f.expr(f"{bounds}.lower_bound")).alias("lowest"),
            f.unix_micros(f.expr(f"{bounds}.upper_bound")).alias("highest"),
        )
        .distinct()
        .collect()
    )
    return [
        gold_hours.between(gold_hours.moment(file.lowest), gold_hours.moment(file.highest + 1))
        for file in files
        if file.lowest is not None
    ]


def _straddled_days(spark: SparkSession, name: str, column: str, asked: set[datetime]) -> set[datetime]:
    """Days with a data file that holds asked and other hours; files never cross a day, which is a partition."""
    held = files_hours(spark, name, column)
    return {
        gold_hours.day_of(hours[0]) for hours in held if not asked.isdisjoint(hours) and not asked.issuperset(hours)
    }


def _one_unit_a_task(spark: SparkSession, table: Table, rows: DataFrame, written: set[datetime]) -> DataFrame:
    """Rows of one hour, or of one day that is written whole, to one task; rows of other hours are cut."""
    assert table.hour_column
    whole = {
        day
        for day in {gold_hours.day_of(hour) for hour in written}
        if written.issuperset(gold_hours.between(day, day + DAY))
    }
    units: dict[tuple[bool, datetime], int] = {}
    placed = []
    for hour in sorted(written):
        day = gold_hours.day_of(hour)
        unit = units.setdefault((True, day) if day in whole else (False, hour), len(units))
        placed.append((gold_hours.number(hour), unit))
    places = spark.createDataFrame(placed, "hour_number bigint, unit int")
    return (
        rows.withColumn("hour_number", gold_hours.number_column(table.hour_column))
        .join(f.broadcast(places), "hour_number", "inner")
        .repartitionById(len(units), f.col("unit"))
        .select(*table.column_names)
    )
