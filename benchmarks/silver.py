"""How fast bronze becomes silver: one run of a million Coinbase messages through `silver.advance`, start-up apart.

Starts its own PostgreSQL, Kafka and S3 under a temporary folder, writes bronze as the stream writes it (one file a
commit), advances, and writes figures and the machine's description to benchmarks/results/silver.json.

    .venv/bin/python benchmarks/silver.py [--messages 1000000] [--duplicates 0.001]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from marketflow.contracts import tables as contracts
from marketflow.lake import session, silver
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import schema

RESULTS = Path(__file__).parent / "results" / "silver.json"
BRONZE_BATCH = 50_000
WARM_UP = 200_000
START = datetime(2026, 11, 20, 8, tzinfo=UTC)


def messages(spark: SparkSession, first: int, rows: int, topic: str, duplicates: float) -> DataFrame:
    """Matches of two products on two of the four partitions, 1,000 a second, ids without a hole.

    One in `1 / duplicates` repeats the trade before it, as a reconnect does.
    """
    step = int(1 / duplicates) if duplicates else 0
    number = f.col("id")
    product = f.when(number % 2 == 0, "BTC-USD").otherwise("ETH-USD")
    offset = f.floor(number / 2)
    trade_id = offset if not step else offset - f.floor(offset / step)
    event = f.timestamp_micros(f.lit(int(START.timestamp() * 1e6)) + number * 1000)
    repeat = (offset % step == 0) if step else f.lit(False)
    # the repeated trade has the price and time of the one before
    base = f.when(repeat & (offset > 0), number - 2).otherwise(number)
    at = f.date_format(f.timestamp_micros(f.lit(int(START.timestamp() * 1e6)) + base * 1000), _FORMAT)
    value = f.format_string(
        '{"type":"match","trade_id":%d,"maker_order_id":"b1c0b3a4-9a2f-4f0e-9a55-3f1f0c3f7f01",'
        '"taker_order_id":"0e5f8f3c-7f3f-4d7b-8c0e-6a1c1a1d9c02","side":"%s","size":"0.%08d","price":"%d.%02d",'
        '"product_id":"%s","sequence":%d,"time":"%s"}',
        trade_id + 1_000_000,
        f.when(base % 3 == 0, "buy").otherwise("sell"),
        base % 99_999_999 + 1,
        60_000 + base % 977,
        base % 100,
        product,
        number + 5_000_000_000,
        at,
    )
    received = f.col("received")
    headers = f.to_json(
        f.struct(
            f.lit("1").alias("schema_version"),
            f.lit("coinbase_exchange").alias("venue"),
            f.lit("matches").alias("channel"),
            f.unix_micros(received).cast("string").alias("received_at"),
            f.lit("3f1f0c3f-7f01-4d7b-8c0e-6a1c1a1d9c02").alias("connection_id"),
            f.lit("simulated").alias("origin"),
        )
    )
    known = {
        "topic": f.lit(topic),
        "partition": (number % 2).cast("int"),
        "offset": offset,
        "key": f.concat(f.lit("coinbase_exchange|"), product),
        "value": value.cast("binary"),
        "kafka_timestamp": received,
        "ingested_at": f.lit(START + timedelta(seconds=first / 1000 + 60)),
        "schema_version": f.lit("1"),
        "venue": f.lit("coinbase_exchange"),
        "channel": f.lit("matches"),
        "received_at": received,
        "connection_id": f.lit("3f1f0c3f-7f01-4d7b-8c0e-6a1c1a1d9c02"),
        "origin": f.lit("simulated"),
        "headers": headers,
    }
    rows_of = spark.range(first, first + rows, numPartitions=1).withColumn(
        "received", event + f.expr("interval 1 second")
    )
    table = silver.SOURCES["silver.trades"].bronze
    return rows_of.select(*(known.get(c.name, f.lit(None)).cast(c.type.spark).alias(c.name) for c in table.columns))


_FORMAT = "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'"


def fill(spark: SparkSession, settings: Settings, count: int, duplicates: float, first: int = 0) -> None:
    """Write `count` messages to bronze.trades_raw, 50,000 a commit."""
    source = silver.SOURCES["silver.trades"]
    topic = source.topic.full_name(settings.topic_prefix)
    for start in range(first, first + count, BRONZE_BATCH):
        rows = min(BRONZE_BATCH, first + count - start)
        messages(spark, start, rows, topic, duplicates).writeTo(session.table_name(settings, source.bronze)).append()


def machine() -> dict[str, object]:
    """What the figures were taken on."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 1024**3, 1),
        "python": platform.python_version(),
    }


def cpu_seconds() -> float:
    """Processor time of this process, its JVM and Spark's Python workers so far; not of the servers."""
    spent = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # a worker that has just ended
            if process.pid == os.getpid() or "pyspark" in " ".join(process.cmdline()):
                times = process.cpu_times()
                spent += times.user + times.system
    return spent


def main() -> None:
    """Run and write the result."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--messages", type=int, default=1_000_000)
    arguments.add_argument("--duplicates", type=float, default=0.001)
    asked = arguments.parse_args()
    described = machine()
    with tempfile.TemporaryDirectory() as home, temporary_stack(Path(home)) as settings:
        schema.apply(settings)
        spark = session.spark(settings, "benchmark_silver")
        apply_contracts(spark, settings)
        source = silver.SOURCES["silver.trades"]
        # start-up apart: a first run starts the workers, and Java compiles what is run often
        fill(spark, settings, WARM_UP, asked.duplicates)
        silver.advance(spark, settings, source)
        fill(spark, settings, asked.messages, asked.duplicates, first=WARM_UP)
        load, spent = round(os.getloadavg()[0], 2), cpu_seconds()
        began = time.perf_counter()
        commits = silver.advance(spark, settings, source, max_messages=asked.messages)
        seconds, spent = time.perf_counter() - began, cpu_seconds() - spent
        stored = spark.table(session.table_name(settings, contracts.table("silver.trades"))).count()
        spark.stop()
    total = commits[0].accounting
    result = {
        "what": "silver.advance of one run of messages into a table with a watermark; bronze in commits of 50,000",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": described,
        "messages": total.messages,
        "accepted": total.accepted,
        "duplicate": total.duplicate,
        "commits": len(commits),
        "rows_in_table": stored,
        "seconds": round(seconds, 2),
        "messages_per_s": round(total.messages / seconds),
        "cpu_seconds": round(spent, 1),
        "load_of_the_machine_before": load,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
