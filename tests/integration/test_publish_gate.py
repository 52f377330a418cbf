"""A bad row in gold stays out of PostgreSQL, which keeps the rows it had; who asks is told why and what to run."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from gold_lake import append, at, complete, fresh, stored, trade
from psycopg import sql
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from marketflow.contracts.columns import Table, Type
from marketflow.contracts.gold import BARS, GOLD_TABLES, TRADE_FEATURES
from marketflow.contracts.silver import TRADES
from marketflow.errors import QualityError
from marketflow.lake import gold, gold_write
from marketflow.lake.session import table_name
from marketflow.quality import late
from marketflow.settings import Settings
from marketflow.warehouse import checks, gate, schema
from marketflow.warehouse.connection import connect
from marketflow.warehouse.publish import publish
from tests.integration.test_publish import audit, published

NOW = at("20:00")
SEVEN = at("7:00")


@pytest.fixture
def shown(embedded: Settings, lake: SparkSession) -> tuple[SparkSession, Settings]:
    """Bars from seven to ten, published."""
    fresh(lake, embedded)
    with connect(embedded) as connection:
        connection.execute("delete from ops.quality_result")
    trades = [
        trade(i + 1, at("7:05") + i * timedelta(minutes=10), price=f"{100 + i}.125", size="0.25") for i in range(19)
    ]
    append(lake, embedded, TRADES, trades)
    complete(embedded, TRADES, at("10:20"))
    gold.rewrite_dirty(lake, embedded, BARS)
    publish(embedded, "gold.bars", now=NOW)
    return lake, embedded


def plant(spark: SparkSession, settings: Settings, change: dict[str, int], *, twice: bool = False) -> None:
    """Write seven o'clock of gold.bars again, with other values in the bar of 7:05, as a wrong kernel would."""
    name = table_name(settings, BARS)
    rows = spark.table(name).where(f"open_ts >= '{SEVEN.isoformat()}' and open_ts < '{at('8:00').isoformat()}'")
    hit = (f.col("interval") == "1m") & (f.col("open_ts") == at("7:05"))
    changed = rows.select(
        *(
            f.when(hit, f.lit(change[column]).cast(rows.schema[column].dataType)).otherwise(f.col(column)).alias(column)
            if column in change
            else f.col(column)
            for column in BARS.column_names
        )
    ).localCheckpoint()
    if twice:
        changed = changed.unionByName(changed.where(hit)).localCheckpoint()
    properties = {"hours": f'["{SEVEN.isoformat()}"]', "complete_through": at("10:20").isoformat()}
    gold_write.replace(spark, name, BARS, changed, [SEVEN], properties)


def results(settings: Settings) -> dict[str, tuple[Any, ...]]:
    with connect(settings, "marketflow_reader") as connection:
        rows = connection.execute(
            "select check_name, outcome, failing_rows, owner, severity, stage from ops.quality_latest"
        ).fetchall()
    return {name: tuple(rest) for name, *rest in rows}


@pytest.mark.parametrize(
    ("change", "twice", "check"),
    [
        ({"high": 1, "low": 2}, False, "bars_are_possible"),
        ({"low": -3}, False, "bars_are_possible"),
        ({"trade_count": 2}, False, "bars_add_up"),
        ({}, True, "keys_are_unique.bars"),
    ],
)
def test_a_bad_row_keeps_the_whole_publication_out_until_gold_is_written_again(
    shown: tuple[SparkSession, Settings], change: dict[str, int], twice: bool, check: str
) -> None:
    spark, settings = shown
    before, audited = published(settings, BARS), audit(settings, BARS)
    assert {row[0] for row in results(settings).values()} == {"passed"}
    plant(spark, settings, change, twice=twice)

    for _ in range(2):  # the next run finds the same, and changes nothing either
        with pytest.raises(QualityError) as caught:
            publish(settings, "gold.bars", now=NOW)

    assert check in caught.value.checks
    said = str(caught.value)
    assert said.startswith("gold.bars was not published, and PostgreSQL keeps the rows it had: ")
    command = 'scripts/airflow dags trigger gold_bars --conf \'{"partition": "2026-03-10T07:00:00+00:00"}\''
    assert command in said
    assert caught.value.command == command
    assert "2026-03-10T07:0" in caught.value.cause
    assert published(settings, BARS) == before
    assert audit(settings, BARS) == audited
    assert results(settings)[check][0] == "failed"
    assert results(settings)[check][2:] == ("gold_bars", "hard", "publish")
    (why,) = [one for one in late.find(settings, now=NOW) if one.table == "postgres gold.bars"]
    assert check in why.cause

    gold.backfill_hours(spark, settings, BARS, [SEVEN])
    publish(settings, "gold.bars", now=NOW)
    assert published(settings, BARS) == stored(spark, settings, BARS)
    assert results(settings)[check][0] == "passed"
    assert [one for one in late.find(settings, now=NOW) if one.table == "postgres gold.bars"] == []


def test_the_command_says_why_in_one_line_and_leaves_the_rows(shown: tuple[SparkSession, Settings]) -> None:
    spark, settings = shown
    before = published(settings, BARS)
    plant(spark, settings, {"high": 1, "low": 2})
    ports = ("postgres_port", "kafka_port", "s3_port")
    variables = {f"MARKETFLOW_{name.upper()}": str(getattr(settings, name)) for name in (*ports, "home")}
    # the rows are of a March long past: a window that holds them
    variables["MARKETFLOW_PUBLISH_DAYS"] = "3650"
    done = subprocess.run(
        [sys.executable, "-m", "marketflow.cli", "publish", "gold.bars"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert done.stderr.startswith("marketflow: gold.bars was not published, and PostgreSQL keeps the rows it had: bars")
    assert "Traceback" not in done.stderr
    assert published(settings, BARS) == before


_ANY = {
    Type.STRING: "BTC-USD",
    Type.TIMESTAMP: SEVEN,
    Type.MONEY: 1,
    Type.DOUBLE: 0.5,
    Type.LONG: 1,
    Type.INTEGER: 1,
    Type.BOOLEAN: True,
}


def write_feature_row(spark: SparkSession, settings: Settings, **other: float) -> None:
    """Write seven o'clock of gold.trade_features: one trade whose numbers are all 0.5, but for these."""
    any_row = {column.name: _ANY[column.type] for column in TRADE_FEATURES.columns}
    row = any_row | {"price": Decimal("0.5"), "size": Decimal(1), "taker_side": "buy"} | other
    frame = spark.createDataFrame([tuple(row.values())], TRADE_FEATURES.spark_schema)
    properties = {"hours": f'["{SEVEN.isoformat()}"]', "complete_through": at("10:20").isoformat()}
    gold_write.replace(spark, table_name(settings, TRADE_FEATURES), TRADE_FEATURES, frame, [SEVEN], properties)


def test_a_feature_that_is_not_a_number_is_refused_and_the_old_row_stays(
    embedded: Settings, lake: SparkSession
) -> None:
    fresh(lake, embedded)
    name = TRADE_FEATURES.qualified
    write_feature_row(lake, embedded)
    publish(embedded, name, now=NOW)
    before, audited = published(embedded, TRADE_FEATURES), audit(embedded, TRADE_FEATURES)
    assert [row["kyle_lambda_500"] for row in before] == [0.5]

    write_feature_row(lake, embedded, kyle_lambda_500=float("nan"))
    with pytest.raises(QualityError) as caught:
        publish(embedded, name, now=NOW)

    assert caught.value.checks == ("numbers_are_finite.trade_features",)
    assert '"not_finite": "kyle_lambda_500"' in caught.value.cause
    assert caught.value.command.endswith('gold_trade_features --conf \'{"partition": "2026-03-10T07:00:00+00:00"}\'')
    assert published(embedded, TRADE_FEATURES) == before
    assert audit(embedded, TRADE_FEATURES) == audited


WITH_DOUBLES = [table for table in GOLD_TABLES if any(column.type is Type.DOUBLE for column in table.columns)]


@pytest.mark.parametrize("table", WITH_DOUBLES, ids=lambda table: table.name)
def test_the_gate_sees_a_number_that_is_not_finite_in_every_column_that_can_hold_one(
    embedded: Settings, table: Table
) -> None:
    schema.apply(embedded)
    doubles = [column.name for column in table.columns if column.type is Type.DOUBLE]
    # beside nulls, of which a comparison knows nothing
    statement = sql.SQL("insert into {} ({}, {}) values (%s, %s)")
    (check,) = [one for one in checks.gates_of(table) if one.name == f"numbers_are_finite.{table.name}"]
    with connect(embedded) as connection:
        gate.open_stage(connection, table)
        for column in doubles:
            asked = statement.format(gate.staged(table), sql.Identifier(str(table.hour_column)), sql.Identifier(column))
            values = ("NaN", "Infinity", "-Infinity", "1e308", "-1e308", None)
            connection.cursor().executemany(asked, [(SEVEN, value) for value in values])
        found = checks.run(connection, check, None, gate.staged(table))
    assert found.failing_rows == 3 * len(doubles)
    assert {row["not_finite"] for row in found.sample} <= set(doubles)


@pytest.mark.parametrize("table", GOLD_TABLES, ids=lambda table: table.name)
def test_every_gate_of_every_table_can_be_asked_and_sees_a_key_that_is_there_twice(
    embedded: Settings, table: Table
) -> None:
    schema.apply(embedded)
    names = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    marks = sql.SQL(", ").join(sql.Placeholder() for _ in table.columns)
    with connect(embedded) as connection:
        gate.open_stage(connection, table)
        found = {one.name: checks.run(connection, one, None, gate.staged(table)) for one in checks.gates_of(table)}
        assert len(found) >= 3
        assert {one.outcome for one in found.values()} == {"passed"}
        statement = sql.SQL("insert into {} ({}) values ({})").format(gate.staged(table), names, marks)
        connection.cursor().executemany(statement, [[_ANY[column.type] for column in table.columns]] * 2)
        found = {one.name: checks.run(connection, one, None, gate.staged(table)) for one in checks.gates_of(table)}
    twice = found[f"keys_are_unique.{table.name}"]
    assert (twice.outcome, twice.failing_rows, twice.sample[0]["copies"]) == ("failed", 1, 2)
    assert twice.keeps_rows_out
    assert found[f"rows_have_required_columns.{table.name}"].outcome == "passed"
