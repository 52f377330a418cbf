"""A model of one snapshot, kept in S3 with its row in PostgreSQL: the same id gives the same bytes."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import hashlib
import json
import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gold_lake import append, complete, fresh, trade
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from marketflow.cli import app
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.silver import QUOTES, TRADES
from marketflow.errors import ConfigurationError, InputError, LakeStateError, MarketflowError
from marketflow.forecast.lake import Wish
from marketflow.lake import gold
from marketflow.settings import Settings
from marketflow.stack import airflow, forecast, s3
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
START = NOW - timedelta(hours=3)
WISH = Wish("BTC-USD", "coinbase_exchange")


def tape(first_id: int, count: int, start: datetime) -> list[dict[str, Any]]:
    """A random walk, a trade a second."""
    chance, cents, rows = random.Random(first_id), 6_000_000, []
    for number in range(count):
        cents += chance.choice((-1, 1)) * chance.randint(1, 5)
        side, when = chance.choice(("buy", "sell")), start + timedelta(seconds=number)
        rows.append(trade(first_id + number, when, f"{cents}e-2", f"{chance.randint(1, 10**6)}e-6", taker_side=side))
    return rows


@pytest.fixture(scope="module")
def settings(embedded: Settings, lake: SparkSession) -> Settings:
    """Gold of 4,800 trades of the last hours."""
    fresh(lake, embedded)
    with connect(embedded) as connection:
        connection.execute("delete from ops.forecast_run")
    write(lake, embedded, tape(1_000, 4_800, START))
    return embedded


def write(lake: SparkSession, settings: Settings, trades: list[dict[str, Any]]) -> None:
    append(lake, settings, TRADES, trades)
    for table in (TRADES, QUOTES):
        complete(settings, table, NOW + timedelta(minutes=2))
    gold.rewrite_dirty(lake, settings, TRADE_FEATURES.qualified)


@pytest.fixture
def as_a_process(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in the environment, as a command or a task finds them."""
    for name in [each for each in os.environ if each.startswith("MARKETFLOW_")]:
        monkeypatch.delenv(name)
    for name in ("home", "postgres_port", "s3_port"):
        monkeypatch.setenv(f"MARKETFLOW_{name.upper()}", str(getattr(settings, name)))
    for name, value in airflow.connections(settings).items():
        monkeypatch.setenv(name, value)


def command(*arguments: str) -> Any:
    done = CliRunner().invoke(app, ["forecast", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.mark.usefixtures("as_a_process")
def test_the_same_snapshot_gives_the_same_model_whatever_was_written_since(
    settings: Settings, lake: SparkSession
) -> None:
    first = forecast.train_on_lake(settings, WISH)
    assert first["rows"]["used"] + first["rows"]["without_target"] + first["rows"]["not_final"] == 4_300
    write(lake, settings, tape(5_800, 300, START + timedelta(seconds=4_800)))
    later = command("train", "--product", "BTC-USD")
    assert later["source"]["snapshot_id"] != first["source"]["snapshot_id"]
    assert later["model_sha256"] != first["model_sha256"]
    snapshot = first["source"]["snapshot_id"]
    again = command("train", "--product", "BTC-USD", "--snapshot", str(snapshot))
    assert again["model_sha256"] == first["model_sha256"]
    assert (again["score"], again["folds"]) == (first["score"], first["folds"])

    objects = s3.client(settings)
    key = f"forecast/sim/{again['run_id']}/model.txt"
    assert again["model_uri"] == f"s3://lake/{key}"
    model = objects.get_object(Bucket="lake", Key=key)["Body"].read()
    assert hashlib.sha256(model).hexdigest() == again["model_sha256"]

    rows = command("list")
    assert [row["run_id"] for row in rows] == [one["run_id"] for one in (again, later, first)]
    assert [row["snapshot_id"] for row in rows] == [one["source"]["snapshot_id"] for one in (again, later, first)]
    row = rows[0]
    assert (row["venue"], row["horizon"], row["beats_baseline"]) == ("coinbase_exchange", 10, False)
    assert row["row_count"] == again["rows"]["used"]
    assert row["accuracy"] == again["score"]["accuracy"]
    assert row["settled_rows"] == row["tested_rows"] == again["score"]["rows"]
    assert row["bounce_accuracy"] == again["score"]["baselines"]["bounce"]["accuracy"]
    assert command("list", "--product", "ETH-USD") == []
    assert command("show", again["run_id"]) == again

    objects.put_object(Bucket="lake", Key=key, Body=model + b" ")
    with pytest.raises(LakeStateError, match="was changed: its SHA-256 is not"):
        forecast.show(settings, again["run_id"])


def test_the_newest_rows_are_taken_where_there_are_more_than_asked_for(settings: Settings) -> None:
    whole = forecast.rows_of_lake(settings, WISH)[0]
    some, source = forecast.rows_of_lake(settings, Wish("BTC-USD", most_rows=3_800))
    assert some["trade_id"].to_list() == whole["trade_id"].to_list()[-3_800:]
    assert source["most_rows"] == 3_800


def test_what_cannot_be_trained_is_said(settings: Settings) -> None:
    wishes: list[tuple[Wish, type[MarketflowError], str]] = [
        (Wish("DOGE-MOON"), ConfigurationError, "no product 'DOGE-MOON'; known: "),
        (Wish("ETH-USD"), InputError, r"snapshot \d+ of gold.trade_features has no rows of ETH-USD"),
        (Wish("BTC-USD", end=START + timedelta(minutes=30)), InputError, "are too few: 3,660 final rows"),
        (Wish("BTC-USD", end=START), InputError, "has no rows of BTC-USD before "),
        (Wish("BTC-USD", horizon=5), InputError, "horizon 5: there is 10 and 50"),
        (Wish("BTC-USD", snapshot=5), ConfigurationError, "has no snapshot 5"),
    ]
    for wish, kind, words in wishes:
        with pytest.raises(kind, match=words):
            forecast.train_on_lake(settings, wish)


@pytest.mark.usefixtures("as_a_process")
def test_the_dag_trains_with_a_date_without_one_and_by_wish(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(settings) as connection:
        freshness.mark(connection, TRADE_FEATURES.qualified, NOW + timedelta(hours=2))
    airflow_home.fresh_database()
    monkeypatch.setattr("sys.argv", ["airflow", "dags", "test"])
    from airflow.dag_processing.dagbag import DagBag

    def run(**how: Any) -> str:
        # read anew, as every run of the command is: a Dag keeps the params of its last test
        dag = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags["train_forecast"]
        for task in dag.tasks:
            task.retries = 0
        return str(dag.test(**how).state)

    before = len(forecast.listed(settings))
    assert run() == "success"
    assert run(logical_date=NOW - timedelta(hours=1)) == "success"
    dated, undated = forecast.listed(settings)[:2]
    assert len(forecast.listed(settings)) == before + 2
    assert dated["model_sha256"] == undated["model_sha256"]
    assert run(run_conf={"start": START.isoformat(), "end": (START + timedelta(minutes=20)).isoformat()}) == "failed"
    assert run(run_conf={"produkt": "BTC-USD"}) == "failed"
    assert len(forecast.listed(settings)) == before + 2
