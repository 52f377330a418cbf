"""The features of the catalogue written by Spark's own windows of rows, beside gold.trade_features, in one run.

The usual way is Spark SQL windows (`rowsBetween`) into an Iceberg table. Here, on PostgreSQL and S3 of its own,
start-up apart, are written

- by the kernel, as Dag gold_trade_features replaces hours, four hours of two products, a quarter of a million trades
  each (three times, the median is told);
- by windows, one of these hours, in which each product has a core: the 63 columns of the common contract alone, and all
  of the catalogue that windows can express. The nine features that they cannot are left out, to their advantage. (A
  window of 500 rows is summed anew for each row: four hours would take half an hour.)

The driver has 6 GB instead of its usual memory, which the windows of all features exceed.

Writes benchmarks/results/features-windows.json.

    .venv/bin/python -m benchmarks.features_windows [--scale 1.0]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from benchmarks.features_lake import A_HOUR, DAY, HOUR, HOURS, PRODUCTS, fill, replaced, timed
from benchmarks.results_file import write
from benchmarks.spark_windows import NOT_EXPRESSED, all_features, common_features
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.silver import QUOTES, TRADES
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.lake import gold, session
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import freshness, schema
from marketflow.warehouse.connection import connect

EXPRESSED = frozenset(CATALOGUE).difference(NOT_EXPRESSED)


def by_windows(
    spark: SparkSession,
    settings: Settings,
    products: tuple[str, ...],
    hours: list[Any],
    features: Callable[[DataFrame, DataFrame], DataFrame],
) -> dict[str, Any]:
    """Features by `rowsBetween` into an Iceberg table of their own."""
    rows = spark.table(session.table_name(settings, TRADES)).where(
        f.col("product_id").isin(*products) & (f.col("event_ts") >= hours[0]) & (f.col("event_ts") < hours[-1] + HOUR)
    )
    book = spark.table(session.table_name(settings, QUOTES))
    name = f"{session.CATALOG}.{settings.namespace('gold')}.benchmark_windows"
    made = features(rows, book)
    seconds, peaks = timed(lambda: made.writeTo(name).createOrReplace())
    count = rows.count()
    return {
        "trades": count,
        "features_and_targets": len(EXPRESSED.intersection(made.columns)),
        "seconds": round(seconds, 1),
        "trades_per_s": round(count / seconds),
        "peak_mib": peaks,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of trades; 0.1 for a quick look")
    a_hour = int(A_HOUR * parser.parse_args().scale)
    # with the driver's usual memory the windows of all features end in an OutOfMemoryError
    os.environ.setdefault("MARKETFLOW_SPARK_DRIVER_MEMORY", "6g")
    with tempfile.TemporaryDirectory() as home, temporary_stack(Path(home)) as settings:
        schema.apply(settings)
        spark = session.spark(settings, "benchmark_windows")
        apply_contracts(spark, settings)
        hours = [DAY + number * HOUR for number in range(HOURS)]
        for number, hour in enumerate(hours):
            for product in PRODUCTS:
                fill(spark, settings, product, hour, a_hour, 1 + number * a_hour)
        with connect(settings) as connection:
            for table in (TRADES, QUOTES):
                freshness.mark(connection, table.qualified, hours[-1] + HOUR)
        # workers started, Java's compilers warm
        gold.backfill_hours(spark, settings, TRADE_FEATURES, hours[:1])
        ours = replaced(spark, settings, hours, HOURS * len(PRODUCTS) * a_hour)
        common = by_windows(spark, settings, PRODUCTS, hours[1:2], common_features)
        every = by_windows(spark, settings, PRODUCTS, hours[1:2], all_features)
        spark.stop()
    if every["features_and_targets"] != len(EXPRESSED):
        raise SystemExit("a feature of the catalogue is written by no window: benchmarks/spark_windows.py")
    results = {
        "features_and_targets": len(CATALOGUE),
        "kernel": ours,
        "windows": every,
        "windows_of_the_common_contract": common,
        "times_as_fast": {
            "same_features": round(ours["trades_per_s"] / every["trades_per_s"], 1),
            "common_contract_alone": round(ours["trades_per_s"] / common["trades_per_s"], 1),
        },
    }
    print(json.dumps(results, indent=1))
    print(write("features-windows", results))


if __name__ == "__main__":
    main()
