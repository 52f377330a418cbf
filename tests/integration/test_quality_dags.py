"""By Airflow's own loop: a bad row in gold fails publish_bars; somebody is told what to run, and when it is well."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
from datetime import UTC, datetime, timedelta

import pytest

from marketflow.alerts.store import file_of
from marketflow.contracts.gold import BARS
from marketflow.lake import gold
from marketflow.stack import airflow
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from tests.integration.test_publish import published
from tests.integration.test_publish_gate import SEVEN, plant, shown
from tests.receiver import receiver

__all__ = ["shown"]


@pytest.fixture
def hook():
    with receiver() as listening:
        yield listening


@pytest.fixture
def run(shown, hook, monkeypatch):
    """Runs a Dag on the lake whose bars are published; alerts go to the receiver."""
    _, settings = shown
    file_of(settings).unlink(missing_ok=True)
    variables = {
        "MARKETFLOW_HOME": settings.home,
        "MARKETFLOW_ALERT_URL": hook.url,
        # the rows are of a March long past
        "MARKETFLOW_PUBLISH_DAYS": 3650,
        **{
            f"MARKETFLOW_{name.upper()}": getattr(settings, name) for name in ("postgres_port", "kafka_port", "s3_port")
        },
        **airflow.connections(settings),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    with connect(settings, autocommit=True) as connection:
        connection.execute("truncate ops.alert")
        freshness.mark(connection, "gold.bars", datetime.now(UTC) + timedelta(days=1))
    airflow_home.fresh_database()
    monkeypatch.setattr("sys.argv", ["airflow", "dags", "test"])
    # these runs stand for the scheduler's, of which people are told
    monkeypatch.setattr("marketflow_airflow.notify.is_trial", lambda: False)
    from airflow.dag_processing.dagbag import DagBag

    dags = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags

    def once(dag_id, **how):
        for task in dags[dag_id].tasks:
            task.retries = 0  # a test does not wait for what is tried again
        done = dags[dag_id].test(**how)
        return {one.task_id: str(one.state) for one in done.get_task_instances()}

    return once


def test_publish_bars_fails_at_once_keeps_the_rows_and_tells_what_to_run_until_it_is_well(shown, run, hook):
    spark, settings = shown
    before = published(settings, BARS)
    plant(spark, settings, {"high": 1, "low": 2})
    for _ in range(2):  # the next quarter of an hour finds the same and tells nobody again
        assert run("publish_bars") == {"gold_is_there": "success", "publish": "failed"}
    assert published(settings, BARS) == before
    gold.backfill_hours(spark, settings, BARS, [SEVEN])
    assert run("publish_bars") == {"gold_is_there": "success", "publish": "success"}
    first, last = hook.bodies
    assert (first["key"], first["status"], first["dag"]) == ("task:publish_bars.publish", "firing", "publish_bars")
    assert "bars_are_possible has 1 failing row" in first["cause"]
    assert first["command"] == (
        'scripts/airflow dags trigger gold_bars --conf \'{"partition": "2026-03-10T07:00:00+00:00"}\''
    )
    assert (last["key"], last["status"]) == ("task:publish_bars.publish", "resolved")


def test_quality_fails_by_a_hard_check_alone_tells_of_it_once_and_knows_no_check_that_is_none(shown, run, hook):
    _, settings = shown
    chosen = {"checks": ["bars_are_possible", "gaps_are_closed"], "hours": 24 * 3650}
    hit = "where interval = '1m' and open_ts = '2026-03-10T07:05Z'"
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"update gold.bars set high = high - 1000, low = low {hit}")
    assert run("quality", run_conf=chosen) == {"lateness": "success", "checks": "failed"}
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"update gold.bars set high = high + 1000 {hit}")
        connection.execute(
            "insert into ops.trade_gap values ('coinbase_exchange', 'BTC-USD', 77, 78, now() - interval '3 hours', "
            "'producer', 'drop', 'open', 0)"
        )
    try:
        assert run("quality", run_conf=chosen) == {"lateness": "success", "checks": "success"}
    finally:
        with connect(settings, autocommit=True) as connection:
            connection.execute("delete from ops.trade_gap where first_missing_id = 77")
    assert run("quality", run_conf={"checks": ["nonsense"]})["checks"] == "failed"
    told = [one for one in hook.said("key", "status", "severity") if not one[0].startswith("layer:")]
    # by key: what the receiver answers too late on a stalled machine is sent on beside it, and arrives after the next
    assert sorted(told, key=lambda one: one[0]) == [
        ("quality:bars_are_possible", "firing", "critical"),
        ("quality:bars_are_possible", "resolved", "critical"),
        ("quality:gaps_are_closed", "firing", "warning"),
        ("task:quality.checks", "firing", "critical"),
    ]
    assert "no check nonsense" in hook.bodies[-1]["exception"]
