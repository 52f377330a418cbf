"""Waiting for a layer, on a real PostgreSQL that also goes away."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home  # noqa: F401

# isort: split
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from marketflow.stack import airflow
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from tests.integration.airflow_stage import postgres_server

FIVE = datetime(2026, 11, 20, 5, tzinfo=UTC)
SIX = FIVE + timedelta(hours=1)
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with postgres_server(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def settings(server, monkeypatch):
    """Settings of a server whose marks are those that the test sets."""
    for name, value in airflow.connections(server.settings).items():
        monkeypatch.setenv(name, value)
    with connect(server.settings, autocommit=True) as connection:
        connection.execute("truncate ops.layer_mark")
    return server.settings


def mark(settings, table, at):
    with connect(settings, autocommit=True) as connection:
        freshness.mark(connection, table, at)


def sensor(**options):
    from marketflow_airflow.freshness import FreshnessSensor

    return FreshnessSensor(task_id="wait", **{"tables": ["silver.trades"], "timeout": 60, **options})


def trigger(tables=("silver.trades",), until=SIX, poll_s=0.2):
    from marketflow_airflow.freshness import FreshnessTrigger

    return FreshnessTrigger(tables=tables, until=until.isoformat(), poll_s=poll_s)


def context():
    run = SimpleNamespace(partition_key="2026-11-20T05:00:00", logical_date=None, run_after=SIX, conf=None)
    return {"dag_run": run, "params": {}}


async def first(one):
    async for event in one.run():
        return event.payload
    return None


def test_a_layer_that_is_complete_through_the_hours_end_is_fresh_at_once(settings):
    mark(settings, "silver.trades", SIX)
    assert sensor().execute(context()) == {"status": "fresh"}


@pytest.mark.parametrize("reached", [SIX - MICROSECOND, None])
def test_a_layer_that_is_not_is_waited_for_without_a_slot(settings, reached):
    if reached:
        mark(settings, "silver.trades", reached)
    with pytest.raises(TaskDeferred) as deferred:
        sensor(poke_interval=7).execute(context())
    path, arguments = deferred.value.trigger.serialize()
    assert path == "marketflow_airflow.freshness.FreshnessTrigger"
    assert arguments == {"tables": ["silver.trades"], "until": SIX.isoformat(), "poll_s": 7.0}
    assert deferred.value.timeout == timedelta(seconds=60)


def test_time_to_settle_is_added_to_the_hours_end(settings):
    mark(settings, "silver.trades", SIX + timedelta(seconds=60) - MICROSECOND)
    waiting = sensor(beyond=timedelta(seconds=60))
    assert waiting.poke(context()) is False
    mark(settings, "silver.trades", SIX + timedelta(seconds=60))
    assert waiting.poke(context()) is True


def test_the_slowest_of_several_tables_decides_and_one_never_written_is_not_fresh(settings):
    waiting = sensor(tables=["bronze.trades_raw", "bronze.ticker_raw"])
    mark(settings, "bronze.trades_raw", SIX + timedelta(days=1))
    assert waiting.poke(context()) is False
    mark(settings, "bronze.ticker_raw", SIX - MICROSECOND)
    assert waiting.poke(context()) is False
    mark(settings, "bronze.ticker_raw", SIX)
    assert waiting.poke(context()) is True


async def test_the_trigger_fires_when_the_mark_moves(settings):
    mark(settings, "silver.trades", FIVE)
    waiting = asyncio.create_task(first(trigger()))
    await asyncio.sleep(1)
    assert not waiting.done()
    mark(settings, "silver.trades", SIX)
    assert await asyncio.wait_for(waiting, 30) == {"status": "fresh", "complete_through": SIX.isoformat()}


def test_the_trigger_outlives_a_postgres_that_goes_away(server, settings):
    mark(settings, "silver.trades", FIVE)
    # the server is this thread's child and ends with its parent, so the waiting is another thread's
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(asyncio.run, first(trigger()))
        time.sleep(0.5)
        server.stop()
        time.sleep(2)
        assert not waiting.done()
        server.start()
        time.sleep(0.5)
        assert not waiting.done()
        mark(settings, "silver.trades", SIX)
        assert waiting.result(30)["status"] == "fresh"


async def test_a_cancelled_wait_ends_and_leaves_no_connection(settings):
    mark(settings, "silver.trades", FIVE)
    waiting = asyncio.create_task(first(trigger()))
    await asyncio.sleep(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 30)
    with connect(settings) as connection:
        query = (
            "select count(*) from pg_stat_activity where usename = 'marketflow_writer' and pid <> pg_backend_pid() "
            "and query like '%layer_freshness%' and state <> 'idle'"
        )
        assert connection.execute(query).fetchone() == (0,)


def test_a_trigger_comes_back_from_the_database_as_it_went_in():
    from marketflow_airflow.freshness import FreshnessTrigger

    _, arguments = trigger().serialize()
    assert FreshnessTrigger(**arguments).serialize() == trigger().serialize()


def test_the_wait_ends_with_the_triggers_word():
    assert sensor().execute_complete(context(), {"status": "fresh"}) == {"status": "fresh"}
    for event in (None, {}, {"status": "error"}):
        with pytest.raises(AirflowFailException, match=r"silver.trades: the wait ended without freshness"):
            sensor().execute_complete(context(), event)
