"""The lake read without Spark: what Spark wrote, and nothing else on this machine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from gold_lake import append, at, complete, fresh, stored, trade
from pyspark.sql import SparkSession

from marketflow.contracts.gold import BARS
from marketflow.contracts.silver import QUOTES, TRADES
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import LakeStateError
from marketflow.lake import gold, readers
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import java_table, walk
from marketflow.settings import Settings


@pytest.fixture(scope="module")
def written(embedded: Settings, lake: SparkSession) -> Settings:
    """Two silver commits and one of gold."""
    fresh(lake, embedded)
    trades = [trade(i, at("9:00") + i * timedelta(minutes=7), price=f"{i}.000000000000000001") for i in range(1, 21)]
    append(lake, embedded, TRADES, trades[:10])
    append(lake, embedded, TRADES, trades[10:])
    complete(embedded, TRADES, at("11:00"))
    gold.rewrite_dirty(lake, embedded, BARS)
    return embedded


def in_key_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: tuple(row[name] for name in BARS.key))


def test_pyiceberg_reads_the_rows_that_spark_wrote(written: Settings, lake: SparkSession) -> None:
    assert in_key_order(readers.load(written, "gold.bars").to_pylist()) == stored(lake, written, BARS)
    some = readers.load(
        written, "silver.trades", row_filter="event_ts < '2026-03-10T10:00:00+00:00'", columns=("trade_id", "price")
    )
    assert some.column_names == ["trade_id", "price"]
    assert sorted(some["trade_id"].to_pylist()) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_snapshot_is_read_as_it_was(written: Settings) -> None:
    newest, oldest = readers.snapshots(written, "silver.trades")
    assert readers.load(written, "silver.trades", snapshot_id=oldest.snapshot_id).num_rows == 10
    assert readers.load(written, "silver.trades", snapshot_id=newest.snapshot_id).num_rows == 20


def test_snapshots_say_the_same_without_spark(written: Settings, lake: SparkSession) -> None:
    for table in (BARS, TRADES, QUOTES):
        assert readers.snapshots(written, table) == list(walk(java_table(lake, table_name(written, table))))


def test_duckdb_has_a_view_of_every_table_with_the_contracts_columns(written: Settings) -> None:
    with readers.duckdb(written) as connection:
        for table in LAKE_TABLES:
            described = connection.execute(f"describe {table.qualified}").fetchall()
            assert tuple(row[0] for row in described) == table.column_names
        rows = connection.execute("select * from gold.bars").to_arrow_table().to_pylist()
    assert in_key_order(rows) == in_key_order(readers.load(written, "gold.bars").to_pylist())


def test_duckdb_reaches_the_lake_and_nothing_else(written: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with readers.duckdb(written) as connection:
        for statement in (
            f"select * from read_csv('{tmp_path}/secret.csv')",
            "select * from read_text('s3://another-bucket/key')",
            f"copy (select 1) to '{tmp_path}/out.csv'",
            f"attach '{tmp_path}/other.db'",
        ):
            with pytest.raises(duckdb.PermissionException):
                connection.execute(statement)
        with pytest.raises(duckdb.InvalidInputException, match="locked"):
            connection.execute("set enable_external_access = true")
        told = str(connection.execute("from duckdb_secrets()").fetchall())
        assert written.secret("s3_secret_key") not in told


def test_a_table_that_is_not_there_is_named(written: Settings) -> None:
    other = written.model_copy(update={"dataset": "of_nobody"})
    with pytest.raises(LakeStateError, match=r"gold\.bars of dataset of_nobody is not in the catalog"):
        readers.metadata_location(other, "gold.bars")
