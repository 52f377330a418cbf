"""Dag producers on a real supervisord, PostgreSQL and Kafka; the services are small programs."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import os
import signal
import time
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowException

from marketflow.stack import sources
from marketflow.warehouse import ledger
from marketflow.warehouse.connection import connect
from tests.integration.airflow_services_world import BROKEN, SAYS, services_world
from tests.integration.services_stage import eventually


def rounds_until_one_fails(world):
    """In between a service that fails at once is `starting`, each time it is tried again, and a round says nothing."""
    for _ in range(60):
        world.round(feeds())
        time.sleep(0.5)


@pytest.fixture
def world(embedded, monkeypatch):
    with services_world(embedded, monkeypatch) as built:
        yield built


def feeds():
    from marketflow_airflow.services import FeedsOperator

    return FeedsOperator


def test_what_is_stopped_and_should_run_is_started_once_and_a_quiet_minute_writes_nothing(world):
    world.say()
    world.services(world.producer())

    world.round(feeds())
    pid = world.pid()
    world.round(feeds())
    world.round(feeds())

    assert world.state() == "running"
    assert world.pid() == pid
    assert [event for event, _ in world.events()] == ["started"]
    assert world.rows("select service, desired, set_by from ops.service_desired") == [
        ("producer-coinbase", "running", "configuration")
    ]


def test_a_persons_stop_lasts_until_someone_starts_it_and_says_who_and_why(world):
    world.say()
    world.services(world.producer())
    world.round(feeds())

    world.round(feeds(), by="ada", service="producer-coinbase", action="stop", reason="venue's maintenance")
    assert world.state() == "stopped"
    world.round(feeds())
    assert world.state() == "stopped"
    assert world.rows("select desired, set_by from ops.service_desired") == [("stopped", "ada")]
    event, detail = world.events()[-1]
    assert event == "stopped"
    assert "ada" in detail
    assert "venue's maintenance" in detail

    world.round(feeds(), by="bob", service="producer-coinbase", action="start", reason="over")
    assert world.state() == "running"
    assert [event for event, _ in world.events()] == ["started", "stopped", "started"]


def test_a_wish_is_done_once_a_run_and_whoever_chose_since_has_the_last_word(world):
    world.say()
    world.services(world.producer())
    world.round(feeds())
    stop = {"by": "ada", "service": "producer-coinbase", "action": "stop"}
    world.round(feeds(), **stop)
    stopped_by = world._runs
    world.round(feeds(), by="bob", service="producer-coinbase", action="start")

    world._runs = stopped_by - 1  # ada's run, cleared
    world.round(feeds(), **stop)
    assert world.state() == "running"
    assert world.rows("select desired, set_by from ops.service_desired") == [("running", "bob")]
    world._runs = stopped_by + 1  # and another one of hers
    world.round(feeds(), **stop)
    assert world.state() == "stopped"


def test_a_restart_by_hand_is_done_once_even_where_its_task_is_tried_again(world):
    world.say()
    world.services(world.producer())
    world.round(feeds())
    before = world.pid()
    asked = {"by": "ada", "service": "producer-coinbase", "action": "restart", "reason": "new key"}

    world.round(feeds(), **asked)
    after = world.pid()
    world._runs -= 1  # the same run again
    world.round(feeds(), **asked)

    assert after != before
    assert world.pid() == after
    assert world.events()[-1] == ("restarted", "ada asked: new key")
    assert [event for event, _ in world.events()] == ["started", "restarted"]


def test_a_crash_that_the_supervisor_mended_before_any_round_saw_it_leaves_an_event(world):
    world.say()
    world.services(world.producer())
    world.round(feeds())
    world.execute("update ops.service_event set at = at - interval '10 minutes'")
    killed = world.pid()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: world.state() == "running" and world.pid() not in (None, killed), "a new process")

    world.round(feeds())
    world.round(feeds())

    events = world.events()
    assert [event for event, _ in events] == ["started", "restarted"]
    assert "its supervisor did, after its process ended" in events[-1][1]


def test_a_changed_configuration_restarts_what_runs(world):
    world.say()
    world.services(world.producer())
    world.round(feeds())
    before = world.pid()

    world.services_changed = world.producer(PRODUCTS="BTC-USD")
    world._monkeypatch.setattr("marketflow.stack.backend.definitions", lambda _: (world.services_changed,))
    world.round(feeds())

    assert world.pid() != before
    event, detail = world.events()[-1]
    assert event == "restarted"
    assert detail.startswith("Its configuration changed from ")


def test_a_service_that_cannot_be_started_fails_the_run_with_its_last_words_and_stops_no_other(world):
    world.say()
    world.services(world.producer(), world.stage.definition("producer-coingecko", BROKEN))

    with pytest.raises(AirflowException, match=r"^producer-coingecko: .*unknown product XYZ"):
        world.round(feeds())

    assert world.state() == "running"
    assert [event for event, _ in world.events("producer-coingecko")] == ["down"]
    with pytest.raises(AirflowException, match=r"producer-coingecko: It (should run and is backoff|crashed \d+ times)"):
        rounds_until_one_fails(world)
    assert [event for event, _ in world.events("producer-coingecko")] in (["down"], ["down", "flapping"])
    # a person stops it: nothing is wrong any more
    world.round(feeds(), by="ada", service="producer-coingecko", action="stop")
    assert world.state("producer-coingecko") == "stopped"


def test_a_service_that_was_down_is_well_when_it_has_run_for_a_while_and_not_while_it_is_tried_again(
    world, monkeypatch
):
    flag = world.settings.home / f"mended-{time.time_ns()}"
    until_mended = "import os, pathlib, sys\nif not pathlib.Path(os.environ['FLAG']).exists():\n    sys.exit(2)\n"
    world.say()
    variables = {"SAYS": str(world.says), "PORT": str(world.settings.producer_coinbase_metrics_port)}
    world.services(
        world.stage.definition("producer-coinbase", until_mended + SAYS, variables={**variables, "FLAG": str(flag)})
    )
    with pytest.raises(AirflowException, match=r"^producer-coinbase: "):
        world.round(feeds())
    flag.touch()
    deadline = time.monotonic() + 60
    while world.state() != "running":
        assert time.monotonic() < deadline
        time.sleep(0.2)

    monkeypatch.setattr("marketflow_airflow.service_round.WELL_AFTER_S", 3600.0)
    world.round(feeds())
    assert [event for event, _ in world.events()] == ["down"]
    monkeypatch.setattr("marketflow_airflow.service_round.WELL_AFTER_S", 0.0)
    world.round(feeds())
    assert world.events()[1:] == [("healthy", "It was down and is well.")]


def test_a_silent_source_is_one_event_and_no_failure_and_its_return_another(world, monkeypatch):
    monkeypatch.setattr("marketflow_airflow.feed_watch._FEED_PATIENCE_S", 0.0)
    monkeypatch.setenv("MARKETFLOW_FEED_SILENCE_S", "1")
    world.say()
    world.services(world.producer())
    world.round(feeds())

    world.say(age_s=1000)
    world.round(feeds())
    world.round(feeds())
    assert [event for event, _ in world.events()] == ["started", "silent"]
    assert "No message has arrived for " in world.events()[-1][1]

    world.say()
    world.round(feeds())
    world.round(feeds())
    assert world.events()[2:] == [("healthy", "It was silent and is well.")]


def test_a_full_queue_and_a_spent_quota_are_told_in_one_event(world):
    world.say(queue=70_000)
    world.services(world.producer())
    world.execute(
        "insert into ops.quota_usage values ('coinbase_exchange', 'demo', "
        "date_trunc('month', now() at time zone 'utc'), 9900, 10000, now())"
    )

    world.round(feeds())

    event, detail = world.events()[-1]
    assert event == "behind"
    assert "70000 messages wait for Kafka, of 120000 that fit." in detail
    assert "100 of 10000 calls are left this month." in detail


def test_open_gaps_are_counted_per_source(world):
    from marketflow_airflow import feed_watch

    world.say(queue=3, more='marketflow_messages_total{venue="coinbase_exchange",channel="matches"} 7\n')
    world.services(world.producer())
    world.round(feeds())
    with connect(world.settings) as connection:
        for product, first, last in (("BTC-USD", 10, 19), ("ETH-USD", 5, 5)):
            ledger.open_hole(
                connection,
                venue="coinbase_exchange",
                product_id=product,
                first_missing_id=first,
                last_missing_id=last,
                cause="drop",
                detected_at=datetime.now(UTC),
            )
        seen = feed_watch.look(world.settings, connection, world.backend.status())
        listed = ledger.listed(connection, product_id="BTC-USD")
    assert [line.endswith("3 queued, 2 open gaps (11 trades)") for line in seen.lines] == [True]
    assert (seen.conditions, seen.unsure) == ([], set())
    assert [(row["product_id"], row["missing"], row["status"], row["cause"]) for row in listed] == [
        ("BTC-USD", 10, "open", "drop")
    ]
    [source] = sources.collect(world.settings, rate_over_s=0.2)
    assert (source.state, source.messages, source.messages_per_s, source.reconnects) == ("running", 7, 0.0, 0)
    assert (source.queue_messages, source.open_gaps, source.missing_trades, source.quota) == (3, 2, 11, None)
    assert 0 <= source.age_s(datetime.now(UTC)) < 60
    row = sources.render([source], datetime.now(UTC)).splitlines()[2].split()
    assert row[:2] == ["producer-coinbase", "running"]
    assert row[-3:] == ["2", "(11", "trades)"]


def test_a_choice_of_a_service_that_is_not_here_is_refused(world):
    world.say()
    world.services(world.producer())
    with pytest.raises(ValueError, match=r"service 'postgres' is none of producer-coinbase"):
        world.round(feeds(), by="ada", service="postgres", action="stop")


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"service": "producer-coinbase", "acton": "stop"}, "form has no acton; it has: service, action, reason"),
        ({"action": "stop"}, "say which service to stop: .*producer-coinbase"),
    ],
)
def test_a_misspelt_or_half_a_wish_fails_the_run_and_touches_nothing(world, form, says):
    world.say()
    world.services(world.producer())
    with pytest.raises(AirflowException, match=says):
        world.round(feeds(), by="ada", **form)
    assert world.state() == "stopped"
    assert world.events() == []


def test_one_that_cannot_even_be_defined_is_said_and_what_runs_goes_on(world):
    world.say()
    world.services(world.producer())
    world.round(feeds())
    pid = world.pid()
    world.configure(world.producer(), world.stage.definition("producer-coingecko", SAYS, "two\nlines"))
    with pytest.raises(AirflowException, match=r"producer-coingecko: could not start it: .*line"):
        world.round(feeds())
    assert world.pid() == pid
    assert [event for event, _ in world.events("producer-coingecko")] == ["down"]


def test_the_form_of_the_dag_reaches_the_service(world):
    """By Airflow's own loop: the Dag as it is in the project, with what a person filled in."""
    from airflow.dag_processing.dagbag import DagBag

    world.say()
    world.services(world.producer())
    world.round(feeds())
    airflow_home.fresh_database()
    dag = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags["producers"]

    run = dag.test(run_conf={"service": "producer-coinbase", "action": "stop", "reason": "a test"})

    assert run.state == "success"
    assert world.state() == "stopped"
    assert world.rows("select desired, set_by from ops.service_desired") == [("stopped", "dag_test")]
