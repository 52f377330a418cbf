"""What gold.trade_features costs in the lake: hours through Spark's workers into Iceberg, replaced as the Dag does.

Two measurements in one run, on PostgreSQL and S3 of its own, start-up apart:

- a backlog: four hours of two products, a quarter of a million trades each, replaced in one commit;
- a busy hour: one product at 1,000 trades a second, 3.6 million trades, replaced in one commit.

What Spark's own windows of rows cost is in benchmarks/features_windows.py.

Hours are replaced three times (Java's compilers are still learning in the first); the median is told, and all three.

Writes benchmarks/results/features-lake.json.

    .venv/bin/python -m benchmarks.features_lake [--scale 1.0]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from benchmarks.memory import Watch
from benchmarks.results_file import write
from marketflow.contracts.columns import Table
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.silver import QUOTES, TRADES
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.lake import gold, session
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import freshness, schema
from marketflow.warehouse.connection import connect

DAY = datetime(2026, 11, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
PRODUCTS = ("BTC-USD", "ETH-USD")
HOURS = 4
A_HOUR = 250_000
BUSY = 3_600_000
ROUNDS = 3
_US = 1_000_000


def trades(spark: SparkSession, product: str, start: datetime, count: int, first_id: int) -> DataFrame:
    """One hour of a product's trades: prices that wander around 60,000 dollars, sizes of eight places."""
    number = f.col("id")
    when = f.timestamp_micros(f.lit(int(start.timestamp() * _US)) + f.floor(number * (3_600 * _US / count)))
    noise = f.pmod(f.xxhash64(number, f.lit(product)), f.lit(10_000_000))
    cents = 6_000_000 + f.floor(200_000 * f.sin(number / 50_000)) + f.pmod(noise, f.lit(101))
    price = (cents / 100).cast("decimal(38,18)")
    size = ((noise + 1) / f.lit(100_000_000)).cast("decimal(20,8)").cast("decimal(38,18)")
    known = {
        "venue": f.lit("coinbase_exchange"),
        "product_id": f.lit(product),
        "trade_id": number + first_id,
        "price": price,
        "size": size,
        "notional": (price.cast("decimal(18,2)") * size.cast("decimal(18,8)")).cast("decimal(38,18)"),
        "taker_side": f.when(noise % 2 == 0, "buy").otherwise("sell"),
        "side_raw": f.when(noise % 2 == 0, "sell").otherwise("buy"),
        "event_ts": when,
        "received_at": when + f.expr("interval 40 milliseconds"),
        "sequence": (number + first_id) * 2,
        **_lineage(number),
    }
    return _rows(spark, TRADES, count, known)


def quotes(spark: SparkSession, product: str, start: datetime, count: int, first_id: int) -> DataFrame:
    """A quote before every second trade."""
    number = f.col("id") * 2
    when = f.timestamp_micros(f.lit(int(start.timestamp() * _US)) + f.floor(number * (3_600 * _US / count)))
    bid = ((6_000_000 + f.floor(200_000 * f.sin(number / 50_000))) / 100).cast("decimal(38,18)")
    amount = f.lit("1.25").cast("decimal(38,18)")
    known = {
        "venue": f.lit("coinbase_exchange"),
        "product_id": f.lit(product),
        "sequence": (number + first_id) * 2 - 1,
        "event_ts": when - f.expr("interval 300 microseconds"),
        "best_bid": bid,
        "best_ask": (bid + f.lit("0.01").cast("decimal(38,18)")).cast("decimal(38,18)"),
        "best_bid_size": amount,
        "best_ask_size": amount,
        "received_at": when,
        **_lineage(number),
    }
    return _rows(spark, QUOTES, count // 2, known)


def _lineage(number: Any) -> dict[str, Any]:
    return {
        "origin": f.lit("simulated"),
        "topic": f.lit("benchmark"),
        "partition": f.lit(0),
        "offset": number,
        "item_index": f.lit(0),
    }


def _rows(spark: SparkSession, table: Table, count: int, known: dict[str, Any]) -> DataFrame:
    rows = spark.range(0, count, numPartitions=1)
    return rows.select(*(known.get(c.name, f.lit(None)).cast(c.type.spark).alias(c.name) for c in table.columns))


def fill(
    spark: SparkSession,
    settings: Settings,
    product: str,
    start: datetime,
    count: int,
    first_id: int,
    *,
    commits: int = 1,
) -> None:
    """One hour of one product, in so many silver commits each of trades and quotes."""
    touched = json.dumps({product: [start.isoformat()]})
    mark = json.dumps({"t": {"0": first_id + count}})
    for table, made in ((TRADES, trades), (QUOTES, quotes)):
        rows = made(spark, product, start, count, first_id)
        for number in range(commits):
            begin, end = (start + HOUR * part / commits for part in (number, number + 1))
            part = rows.where((f.col("event_ts") >= begin) & (f.col("event_ts") < end)) if commits > 1 else rows
            writer = part.writeTo(session.table_name(settings, table))
            writer.option("snapshot-property.marketflow.touched", touched)
            writer.option("snapshot-property.marketflow.watermark", mark).append()


def timed(work: Callable[[], object]) -> tuple[float, dict[str, float]]:
    """Seconds by the clock, and the peak of memory (MiB, PSS) of this driver, its JVM and its workers meanwhile."""
    with Watch() as watch:
        began = time.perf_counter()
        work()
        seconds = time.perf_counter() - began
    return seconds, watch.peaks


def replaced(spark: SparkSession, settings: Settings, hours: list[datetime], count: int) -> dict[str, Any]:
    """Replace the hours, ROUNDS times, from the second on rows that are there: the median time, the most memory."""
    rounds = [timed(lambda: gold.backfill_hours(spark, settings, TRADE_FEATURES, hours)) for _ in range(ROUNDS)]
    seconds = median(one for one, _ in rounds)
    stored = spark.table(session.table_name(settings, TRADE_FEATURES))
    rows = stored.where(f.col("event_ts").between(hours[0], hours[-1] + HOUR)).count()
    return {
        "trades": count,
        "rows": rows,
        "seconds": round(seconds, 1),
        "trades_per_s": round(count / seconds),
        "seconds_of_each_round": [round(one, 1) for one, _ in rounds],
        "peak_mib": {part: max(peaks[part] for _, peaks in rounds) for part in rounds[0][1]},
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of trades; 0.1 for a quick look")
    scale = parser.parse_args().scale
    a_hour, busy = int(A_HOUR * scale), int(BUSY * scale)
    with tempfile.TemporaryDirectory() as home, temporary_stack(Path(home)) as settings:
        schema.apply(settings)
        spark = session.spark(settings, "benchmark_features")
        apply_contracts(spark, settings)
        hours = [DAY + number * HOUR for number in range(HOURS)]
        for number, hour in enumerate(hours):
            for product in PRODUCTS:
                fill(spark, settings, product, hour, a_hour, 1 + number * a_hour)
        busy_hour = DAY + timedelta(days=1)
        # as Dag advance writes it: a commit every five minutes
        fill(spark, settings, "SOL-USD", busy_hour, busy, 1, commits=12)
        with connect(settings) as connection:
            for table in (TRADES, QUOTES):
                freshness.mark(connection, table.qualified, busy_hour + HOUR)
        # workers started, Java's compilers warm
        gold.backfill_hours(spark, settings, TRADE_FEATURES, hours[:1])
        results: dict[str, Any] = {
            "features_and_targets": len(CATALOGUE),
            "backlog": replaced(spark, settings, hours, HOURS * len(PRODUCTS) * a_hour),
            "busy_hour": replaced(spark, settings, [busy_hour], busy),
        }
        spark.stop()
    print(json.dumps(results, indent=1))
    print(write("features-lake", results))


if __name__ == "__main__":
    main()
