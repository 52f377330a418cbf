"""What the lake takes of room beside JSON, and how much of a table a query for one product and day reads.

For every table of a dataset that lies in a stack that is up: its rows, the bytes of its Parquet files, the bytes of the
same rows as JSON lines (DuckDB's to_json; a bronze value as the text that came), and, of tables partitioned by product
and day, the bytes of the files that a scan for one product and day opens, as a share of the table's. Writes
benchmarks/results/storage.json.

    .venv/bin/python -m benchmarks.storage [--dataset replay]
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan
from pyiceberg.table import StaticTable

from benchmarks.results_file import write
from marketflow.contracts.columns import Table
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.lake import readers
from marketflow.lake.file_options import file_options
from marketflow.settings import Settings, load


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
    parser.add_argument("--dataset", default="replay", help="sim, live or replay (default: %(default)s)")
    results = measure(load(dataset=parser.parse_args().dataset))
    print(json.dumps(results, indent=1))
    print(write("storage", results))


if __name__ == "__main__":
    main()
