"""The project's Dags run whole by Airflow's own loop, on a real PostgreSQL; their Spark jobs are small scripts."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from marketflow import paths
from marketflow.stack import airflow
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from tests.integration.airflow_stage import postgres_server

FIVE = datetime(2026, 11, 20, 5, tzinfo=UTC)
ALL = [
    f"{layer}.{name}"
    for layer, names in {
        "bronze": ("trades_raw", "ticker_raw", "prices_raw", "candles_raw"),
        "silver": ("trades", "quotes", "asset_prices", "candles"),
        "gold": ("bars", "price_metrics", "top_movers", "trade_features"),
    }.items()
    for name in names
]
# marks the tables it is told to as a writer would, says how it was called, and ends as it is told to
JOB = """
import json, os, sys
from datetime import UTC, datetime
from marketflow.settings import load
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
with connect(load()) as connection:
    for table in json.loads(os.environ["MARKS"]):
        freshness.mark(connection, table, datetime.now(UTC))
place = sys.argv.index("--summary")
with open(os.environ["SAID"], "a") as file:
    file.write(json.dumps(sys.argv[1:place]) + "\\n")
hours = ["2026-11-20T05:00:00+00:00", "2026-11-20T06:00:00+00:00"]
done = [{"table": name, "rows": 7, "hours": hours} for name in json.loads(os.environ["MARKS"])]
open(sys.argv[place + 1], "w").write(json.dumps(done))
print("the last word")
sys.exit(int(os.environ.get("STATUS", "0")))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with postgres_server(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    """Runs a Dag; every layer is fresh unless the test says otherwise."""
    settings = server.settings
    (tmp_path / "spark_jobs").mkdir()
    for name in ("advance", "silver", "gold", "maintain"):
        (tmp_path / "spark_jobs" / f"{name}.py").write_text(JOB)
    monkeypatch.setattr(paths, "PROJECT_FOLDER", tmp_path)
    variables = {"MARKETFLOW_HOME": settings.home, "MARKETFLOW_POSTGRES_PORT": settings.postgres_port}
    variables |= {"SAID": tmp_path / "said", "MARKS": json.dumps(ALL)} | airflow.connections(settings)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    with connect(settings, autocommit=True) as connection:
        connection.execute("truncate ops.layer_mark, ops.silver_accounting")
        for table in ALL:
            freshness.mark(connection, table, FIVE + timedelta(days=2))
    airflow_home.fresh_database()
    # the Dags are read as that command reads them
    monkeypatch.setattr("sys.argv", ["airflow", "dags", "test"])
    from airflow.dag_processing.dagbag import DagBag

    dags = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags

    def once(dag_id, **how):
        for task in dags[dag_id].tasks:
            task.retries = 0  # a test does not wait for what is tried again
        return Result(dags[dag_id].test(**how), tmp_path / "said")

    return once


class Result:
    """What became of a run."""

    def __init__(self, dag_run, said):
        self.state = str(dag_run.state)
        self.tasks = {one.task_id: str(one.state) for one in dag_run.get_task_instances()}
        self.said = [json.loads(line) for line in said.read_text().splitlines()] if said.exists() else []


def emitted():
    """Asset → what its event said, as the metadata database has it."""
    from airflow import settings
    from sqlalchemy import text

    with settings.engine.connect() as connection:
        rows = connection.execute(
            text("select asset.name, asset_event.extra from asset_event join asset on asset.id = asset_event.asset_id")
        )
        return {name: json.loads(extra) for name, extra in rows}


@pytest.mark.parametrize(
    ("dag_id", "command", "assets"),
    [
        (
            "silver",
            ["--close-hour", "2026-11-20T05:00:00+00:00", "--force"],
            {"silver.trades", "silver.quotes", "silver.asset_prices", "silver.candles"},
        ),
        ("gold_bars", ["--table", "gold.bars", "--hours", "2026-11-20T05:00:00+00:00"], {"gold.bars"}),
        (
            "gold_price_metrics",
            ["--table", "gold.price_metrics", "--hours", "2026-11-20T05:00:00+00:00"],
            {"gold.price_metrics", "gold.top_movers"},
        ),
        (
            "gold_trade_features",
            ["--table", "gold.trade_features", "--hours", "2026-11-20T05:00:00+00:00"],
            {"gold.trade_features"},
        ),
        ("maintain_lake", ["--deep"], set()),
    ],
)
def test_a_dag_runs_one_hour_by_hand_and_emits_what_it_wrote(run, server, dag_id, command, assets):
    params = None
    if dag_id == "maintain_lake":
        # its deep run cleans up the metadata database of the home, which is not the one that this test's runs are in
        airflow.migrate(server.settings)
        params = {"deep": True}
    done = run(dag_id, logical_date=FIVE + timedelta(minutes=20), run_conf=params)
    assert done.state == "success"
    assert done.said == [command]
    # the lake's own is remembered by its job, of which there is only a likeness here
    assert (server.settings.home / "upkeep" / "airflow").exists() is (dag_id == "maintain_lake")
    events = emitted()
    assert set(events) == assets
    assert all(set(said) >= {"complete_through", "snapshot_id"} for said in events.values())
    told = {(said["rows"], said["interval_start"], said["interval_end"], said["hours"]) for said in events.values()}
    assert told == ({(7, FIVE.isoformat(), "2026-11-20T07:00:00+00:00", 2)} if assets else set())


def test_the_form_names_the_hour(run):
    done = run("gold_bars", run_conf={"partition": "2026-11-20T05:30:00Z"})
    assert done.said == [["--table", "gold.bars", "--hours", "2026-11-20T05:00:00+00:00"]]


def test_a_layer_that_is_late_is_waited_for_and_what_depends_on_it_follows(run, server):
    settled = FIVE + timedelta(hours=1, seconds=60)
    with connect(server.settings, autocommit=True) as connection:
        connection.execute("delete from ops.layer_mark where table_name = 'silver.trades'")
        freshness.mark(connection, "silver.trades", settled - timedelta(microseconds=1))

    def settle():
        with connect(server.settings, autocommit=True) as connection:
            freshness.mark(connection, "silver.trades", settled)

    timer = threading.Timer(8, settle)
    timer.start()
    done = run("gold_bars", logical_date=FIVE)
    timer.join()
    assert (done.state, done.tasks["silver_is_complete"], done.tasks["rewrite_hours"]) == ("success",) * 3


def test_advance_brings_every_table_up_to_date_and_says_so(run):
    done = run("advance")
    assert done.state == "success"
    assert done.said == [[]]
    assert set(emitted()) == {name for name in ALL if not name.startswith("bronze")}


def test_a_source_that_failed_makes_the_run_fail_and_no_other_sources_news_false(run, monkeypatch):
    monkeypatch.setenv("MARKS", json.dumps([name for name in ALL if name != "silver.quotes"]))
    monkeypatch.setenv("STATUS", "1")
    done = run("advance")
    assert done.state == "failed"
    assert done.tasks["work"] == "failed"
    accounts = {name: state for name, state in done.tasks.items() if name != "work"}
    assert accounts == {
        f"account_{name.replace('.', '_')}": "failed" if name == "silver.quotes" else "success"
        for name in ALL
        if not name.startswith("bronze")
    }
    events = emitted()
    assert set(events) == {name for name in ALL if not name.startswith("bronze") and name != "silver.quotes"}
    # the job failed, and what it did to the others is told all the same
    assert {(said["rows"], said["hours"]) for said in events.values()} == {(7, 2)}


def test_books_that_do_not_balance_fail_the_account_of_their_table_alone(run, server):
    with connect(server.settings, autocommit=True) as connection:
        connection.execute(
            "insert into ops.silver_accounting values ('silver.trades', 1, now(), '{}', '{}', "
            # ten messages, of which nine are accounted for
            "10, 1, '{}', 8, 0, 8, 8, 0, 0, 0, '{}')"
        )
    done = run("silver", logical_date=FIVE)
    assert done.state == "failed"
    assert [name for name, state in done.tasks.items() if state == "failed"] == ["account_silver_trades"]


def test_gold_that_failed_emits_nothing(run, monkeypatch):
    monkeypatch.setenv("STATUS", "3")
    done = run("gold_bars", logical_date=FIVE)
    assert done.state == "failed"
    assert (done.tasks["rewrite_hours"], done.tasks["account_gold_bars"]) == ("failed", "upstream_failed")
    assert emitted() == {}
