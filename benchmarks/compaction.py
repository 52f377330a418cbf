"""Closed partitions of more than a file's worth, compacted: how large the files become, how long it takes, what memory.

Starts its own PostgreSQL, Kafka and S3 in a temporary folder and fills one hour of bronze.trades_raw with values that
a codec makes half as large, and one product's day of silver.trades with trades whose numbers are random, each in
commits of 50,000 rows; then `maintenance.maintain` does its deep run on both, a week later. Every row is hashed by
DuckDB before and after, which shares nothing with the checksums that compaction makes itself. Writes
benchmarks/results/compaction.json; exit status 1 where rows changed, or a file is not of 128 to 512 MB.

    .venv/bin/python -m benchmarks.compaction
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import Column as Expression
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from benchmarks.memory import Watch
from benchmarks.results_file import write
from marketflow.contracts import tables as contracts
from marketflow.contracts.columns import Table
from marketflow.lake import maintenance, readers, session
from marketflow.lake.compaction import SIZES
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import schema

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
A_COMMIT = 50_000
COMMITS = {"bronze.trades_raw": 24, "silver.trades": 240}


def raw(number: Expression) -> dict[str, Any]:
    """Two kilobytes of hexadecimal digits each, of which a codec saves half."""
    digits = [f.sha2(f.concat(number.cast("string"), f.lit(f"/{part}")), 512) for part in range(16)]
    return {
        "topic": f.lit("sim.crypto.trades.raw"),
        "partition": f.lit(0),
        "offset": number,
        "value": f.concat(*digits).cast("binary"),
        "kafka_timestamp": f.lit(NOON),
        "ingested_at": f.lit(NOON) + f.make_dt_interval(secs=number % 3_000),
    }


def trades(number: Expression) -> dict[str, Any]:
    """Prices and sizes with all of their 18 places, in no order within a commit."""
    at = f.lit(NOON) + f.make_dt_interval(secs=(number % 40_000).cast("decimal(18,6)"))
    money = {
        name: (f.rand(seed) * 60_000).cast("decimal(38,18)")
        for seed, name in enumerate(("price", "size", "notional"), 1)
    }
    return {
        **money,
        "venue": f.lit("coinbase_exchange"),
        "product_id": f.lit("BTC-USD"),
        "trade_id": number * 7_919 % 100_000_007,
        "taker_side": f.when(f.rand(4) < 0.5, "buy").otherwise("sell"),
        "side_raw": f.lit("sell"),
        "event_ts": at,
        "received_at": at,
        "sequence": number * 13,
        "origin": f.lit("simulated"),
        "topic": f.lit("sim.crypto.trades.raw"),
        "partition": f.lit(0),
        "offset": number,
        "ingested_at": at,
        "item_index": f.lit(0),
    }


def fill(spark: SparkSession, settings: Settings, table: Table, columns: Any) -> None:
    """One partition in many commits, a file each."""
    for commit in range(COMMITS[table.qualified]):
        known = columns(f.col("id"))
        rows = spark.range(commit * A_COMMIT, (commit + 1) * A_COMMIT, numPartitions=1).select(
            *(known.get(one.name, f.lit(None)).cast(one.type.spark).alias(one.name) for one in table.columns)
        )
        rows.writeTo(session.table_name(settings, table)).append()


def rows_of(settings: Settings, table: Table) -> tuple[int, int]:
    """How many, and the sum of a hash of each."""
    with readers.duckdb(settings) as lake:
        row = lake.execute(f"select count(*), sum(hash(t)::hugeint) from {table.qualified} t").fetchone()
    return int(row[0]), int(row[1])


def files(spark: SparkSession, settings: Settings, table: Table) -> list[int]:
    """Their bytes, the smallest first."""
    stored = spark.table(f"{session.table_name(settings, table)}.files").select("file_size_in_bytes").collect()
    return sorted(row.file_size_in_bytes for row in stored)


def measure(spark: SparkSession, settings: Settings, table: Table) -> dict[str, Any]:
    """One table's deep run."""
    before, small = rows_of(settings, table), files(spark, settings, table)
    began = time.perf_counter()
    with Watch() as memory:
        done = maintenance.maintain(spark, settings, table, now=NOON + timedelta(days=7), deep=True)
    seconds = time.perf_counter() - began
    large = files(spark, settings, table)
    return {
        "rows": before[0],
        "rows_are_the_same": rows_of(settings, table) == before,
        "files_before": len(small),
        "mib_before": round(sum(small) / 1024**2, 1),
        "mib_of_each_file_after": [round(one / 1024**2, 1) for one in large],
        "sizes_are_right": all(SIZES.smallest <= one <= SIZES.largest for one in large) and len(large) > 1,
        "partitions": done.compacted.partitions,
        "seconds": round(seconds, 1),
        "peak_memory_mib": memory.peaks,
    }


def main() -> None:
    """Measure, print, write."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home, temporary_stack(Path(home)) as settings:
        schema.apply(settings)
        spark = session.spark(settings, "benchmark_compaction")
        apply_contracts(spark, settings)
        for name, columns in (("bronze.trades_raw", raw), ("silver.trades", trades)):
            table = contracts.table(name)
            fill(spark, settings, table, columns)
            results[name] = measure(spark, settings, table)
            print(name, json.dumps(results[name]), flush=True)
        spark.stop()
    print(f"wrote {write('compaction', results)}")
    sys.exit(0 if all(one["rows_are_the_same"] and one["sizes_are_right"] for one in results.values()) else 1)


if __name__ == "__main__":
    main()
