"""What the lake takes of room beside JSON, and how much of a table a query for one product and day reads.

Four days of six products, 50,000 trades a day in all, and 20 coins polled once a minute go into dataset replay of
servers started for it, through every layer and a deep run of maintenance, as a day later. Then of every table: its
rows, the bytes of its Parquet files, the bytes of the same rows as JSON lines (DuckDB's to_json; a bronze value as the
text that came), and, of tables partitioned by product and day, the bytes of the files that a scan for one product and
day opens, as a share of the table's. Writes benchmarks/results/storage.json.

    .venv/bin/python -m benchmarks.storage
    .venv/bin/python -m benchmarks.storage --dataset sim     of a stack that is up, as it is
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan
from pyiceberg.table import StaticTable

from benchmarks.results_file import write
from marketflow.contracts.columns import Table
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.lake import readers
from marketflow.lake.file_options import file_options
from marketflow.settings import Settings, load
from marketflow.stack import replay
from marketflow.stack.servers import temporary_stack

DAYS = 4
PRODUCTS = ("BTC-USD", "ETH-USD", "SOL-USD", "XRP-USD", "ADA-USD", "DOGE-USD")
A_DAY = 50_000


def fill(settings: Settings, folder: Path) -> None:
    """The days through every layer, and maintained."""
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS + 1)
    out = folder / "days.ndjson"
    arguments = ["--out", str(out), "--truth", str(folder / "truth"), "--start", start.isoformat()]
    arguments += ["--hours", str(24 * DAYS), "--rate", f"{A_DAY / 86_400 / len(PRODUCTS):.5f}", "--seed", "5"]
    arguments += ["--assets", "20", "--poll-interval-s", "60", "--products", ",".join(PRODUCTS), "--no-tape"]
    subprocess.run([sys.executable, "-m", "marketflow.simulator", "capture", *arguments], check=True)
    say = lambda text: print(text, flush=True)  # noqa: E731
    accounting = replay.run_on_servers(settings, [out], fresh=True, say=say)
    if not accounting.balanced:
        raise SystemExit(f"not everything is accounted for: {accounting.problems}")
    replay.run_job(settings, "maintain", "--deep")


def opened(settings: Settings, table: Table) -> StaticTable:
    """The table as it is now."""
    return StaticTable.from_metadata(readers.metadata_location(settings, table), properties=file_options(settings))


def size(table: StaticTable, asked: Any = None) -> int:
    """Bytes of the files that a scan opens."""
    scan = table.scan() if asked is None else table.scan(row_filter=asked)
    return sum(task.file.file_size_in_bytes for task in scan.plan_files())


def as_json(lake: Any, table: Table) -> tuple[int, int]:
    """Rows, and their bytes as JSON lines; of bronze the bytes of the messages as they came, and a line's end each."""
    text = "octet_length(value)" if table.layer == "bronze" else "strlen(to_json(t)::varchar)"
    rows, taken = lake.execute(f"select count(*), coalesce(sum({text} + 1), 0) from {table.qualified} t").fetchone()
    return rows, int(taken)


def share(lake: Any, table: Table, stored: StaticTable, whole: int) -> dict[str, Any] | None:
    """How much of the table a query for a product and day reads: the mean and the most over all there are."""
    column = table.hour_column
    if "product_id" not in table.partitioning or f"days({column})" not in table.partitioning:
        return None
    days = lake.execute(
        f"select distinct product_id, date_trunc('day', {column}) from {table.qualified} order by all"
    ).fetchall()
    if len(days) < 2:
        return None
    shares = []
    for product, day in days:
        end = lake.execute("select ?::timestamptz + interval 1 day", [day]).fetchone()[0]
        within = And(GreaterThanOrEqual(column, day.isoformat()), LessThan(column, end.isoformat()))
        shares.append(size(stored, And(EqualTo("product_id", product), within)) / whole)
    return {
        "products_and_days": len(days),
        "read_of_the_table_percent_mean": round(100 * sum(shares) / len(shares), 2),
        "read_of_the_table_percent_most": round(100 * max(shares), 2),
    }


def measure(settings: Settings) -> dict[str, Any]:
    """Each table that has rows, and each layer's sums."""
    tables: dict[str, Any] = {}
    layers: dict[str, list[int]] = {}
    with readers.duckdb(settings) as lake:
        for table in LAKE_TABLES:
            rows, text = as_json(lake, table)
            if not rows:
                continue
            stored = opened(settings, table)
            parquet = size(stored)
            tables[table.qualified] = {
                "rows": rows,
                "parquet_bytes": parquet,
                "json_bytes": text,
                "times_smaller": round(text / parquet, 1),
                "one_product_and_day": share(lake, table, stored, parquet),
            }
            if table.name == "rejected":
                continue  # each refused item with its whole message: no measure of the layer
            sums = layers.setdefault(table.layer, [0, 0])
            sums[0] += parquet
            sums[1] += text
    return {
        "dataset": settings.dataset,
        "layers": {layer: {"times_smaller": round(text / parquet, 1)} for layer, (parquet, text) in layers.items()},
        "tables": tables,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", help="sim, live or replay of a stack that is up, instead of the generated days")
    asked = parser.parse_args()
    if asked.dataset:
        results = measure(load(dataset=asked.dataset))
    else:
        with tempfile.TemporaryDirectory() as folder, temporary_stack(Path(folder) / "home") as servers:
            settings = load(home=servers.home, dataset="replay")
            fill(settings, Path(folder))
            results = measure(settings)
    print(json.dumps(results, indent=1))
    print(write("storage", results))


if __name__ == "__main__":
    main()
