"""Dag producers and what hangs, what flaps, what is taken out of the configuration, and an Airflow that is killed."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home  # noqa: F401

# isort: split
import json
import os
import pickle
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException

from marketflow.services import supervisor
from marketflow.stack import doctor, sources, status
from marketflow.stack.servers import free_ports
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from tests.integration.airflow_services_world import services_world
from tests.integration.layer_marks import marks_kept
from tests.integration.lifecycle_stage import Producers, impatient
from tests.integration.services_stage import eventually
from tests.integration.simulator_process import environment

COINBASE, COINGECKO = "producer-coinbase", "producer-coingecko"


@pytest.fixture
def world(embedded, monkeypatch):
    impatient(monkeypatch)
    # the real ones, over events whose time the test moves back
    monkeypatch.setattr("marketflow_airflow.service_restarts.SEEN_AGAIN_AFTER", timedelta(seconds=30))
    monkeypatch.setattr(
        "marketflow_airflow.service_restarts.PAUSES",
        (timedelta(0), timedelta(minutes=10), timedelta(minutes=30), timedelta(hours=2)),
    )
    monkeypatch.setattr("marketflow.services.flapping.CALM_AFTER", timedelta(minutes=5))
    with services_world(embedded, monkeypatch) as built:
        yield built


@pytest.fixture
def producers(world):
    built = Producers(world)
    world.services(built.definition(COINBASE))
    world.round(feeds())
    eventually(lambda: built.answers(COINBASE), "the producer to answer")
    return built


def feeds():
    from marketflow_airflow.services import FeedsOperator

    return FeedsOperator


def kinds(world, service=COINBASE):
    return [event for event, _ in world.events(service)]


def pass_time(world, minutes):
    """All that happened lies so much further back."""
    world.execute(f"update ops.service_event set at = at - interval '{minutes} minutes'")


def hang_for_long(world, producers):
    """Until a round would take its silence for more than a start."""
    producers.hang(COINBASE)
    eventually(lambda: world.backend.status()[COINBASE].uptime_s > 3, "its start to be long ago")


def test_a_hung_producer_is_restarted_by_the_second_round_that_finds_it_so_and_its_alert_ends_when_it_answers(
    world, producers, monkeypatch
):
    hung = world.pid()
    hang_for_long(world, producers)
    world.round(feeds())
    world.round(feeds())  # seconds later: the same look, not a second one
    assert world.pid() == hung
    assert kinds(world) == ["started", "hung"]
    assert "does not answer on its metrics port" in world.events()[-1][1]
    [(title, body, over)] = world.alerts()
    assert (title, json.loads(body)["command"], over) == ("producer-coinbase is hung", "marketflow sources", False)
    [source] = [one for one in sources.collect(world.settings, rate_over_s=0) if one.service == COINBASE]
    assert source.hung
    assert any(f"{COINBASE} is hung: It has run" in one for one in status.collect(world.settings).problems)

    pass_time(world, 1)
    world.round(feeds())
    assert world.pid() not in (None, hung)
    assert [process.pid for process in producers.of(COINBASE)] == [world.pid()]
    assert kinds(world) == ["started", "hung", "restarted"]
    assert "An earlier round found it so already." in world.events()[-1][1]
    assert [over for _, _, over in world.alerts()] == [False]  # nobody knows yet whether it helped
    with monkeypatch.context() as patch:
        real = supervisor._status
        waits = {"state": "starting", "since": datetime.now(UTC), "detail": "waits for 127.0.0.1:1 (20 s)"}
        patch.setattr(supervisor, "_status", lambda *given: replace(real(*given), **waits))
        world.round(feeds())
    assert [over for _, _, over in world.alerts()] == [False]  # what waits to begin is not well
    open_alert = "an alert is open: producer-coinbase is hung (since "
    assert any(open_alert in one for one in status.collect(world.settings).warnings)

    eventually(lambda: producers.answers(COINBASE), "the new one to answer")
    world.round(feeds())
    assert [over for _, _, over in world.alerts()] == [True]
    assert kinds(world) == ["started", "hung", "restarted"]


def test_status_says_that_kafka_is_away_and_what_it_knows_without_it(world):
    world.services()
    away = world.settings.model_copy(update={"kafka_port": free_ports(1)[0]})
    with marks_kept(world.settings, emptied=True) as connection:
        freshness.mark(connection, "silver.trades", datetime.now(UTC))
        found = status.collect(away)
    assert [one.partition(":")[0] for one in found.problems if "Kafka" in one] == ["Kafka does not answer as it should"]
    assert [one.table_name for one in found.layers if not one.table_name.startswith(status.COPY)] == ["silver.trades"]
    assert (found.lag_messages, found.outage) == ({}, None)
    assert "Kafka can bridge unknown" in status.render(found)
    # doctor says so too, and looks at what comes behind it all the same
    looked = doctor.examine(away)
    assert sum((one.problem or "").startswith("Kafka does not answer as it should") for one in looked) == 1
    assert {"secrets", "disk", "locks"} <= {one.what for one in looked}


def test_a_simulated_exchange_that_stands_still_is_restarted_by_the_second_round_too(world, tmp_path, monkeypatch):
    name, port = "simulator", world.settings.simulator_rest_port
    market = environment(tmp_path, rest_port=port, tape=False)
    program = 'import runpy\nrunpy.run_module("marketflow.simulator", run_name="__main__")'
    world.services(world.stage.definition(name, program, variables=market))
    world.round(feeds())
    eventually(lambda: sources.simulator_answers(world.settings), "the simulator to answer")
    eventually(lambda: world.backend.status()[name].uptime_s > 3, "its start to be long ago")
    world.round(feeds())
    assert kinds(world, name) == ["started"]

    hung = world.pid(name)
    os.kill(hung, signal.SIGSTOP)
    world.round(feeds())
    assert (world.pid(name), kinds(world, name)) == (hung, ["started", "hung"])
    assert "does not answer on its REST port" in world.events(name)[-1][1]
    pass_time(world, 1)
    world.round(feeds())
    assert world.pid(name) not in (None, hung)
    assert kinds(world, name) == ["started", "hung", "restarted"]
    # the new one stands still before it has answered: too young to be called hung, and not well either
    os.kill(world.pid(name), signal.SIGSTOP)
    monkeypatch.setattr("marketflow.stack.hanging.STARTED_WITHIN_S", 600.0)
    world.round(feeds())
    assert [over for _, _, over in world.alerts(name)] == [False]
    os.kill(world.pid(name), signal.SIGCONT)
    eventually(lambda: sources.simulator_answers(world.settings), "the new one to answer")
    world.round(feeds())
    assert [over for _, _, over in world.alerts(name)] == [True]


def test_where_a_restart_did_not_help_the_pauses_grow_and_only_the_alert_remains(world, producers, monkeypatch):
    monkeypatch.setattr("marketflow_airflow.feed_watch.ANSWER_WITHIN_S", 0.5)
    monkeypatch.setattr("marketflow.stack.sources.scrape.__kwdefaults__", {"timeout_s": 0.5})
    restarts = []
    # minutes between the rounds: the first after a start finds it, the last of a row is behind the pause
    for row in ((1, 1), (1, 1, 7, 2), (1, 28, 2), (1, 118, 2)):
        hang_for_long(world, producers)
        for minutes in row:
            pass_time(world, minutes)
            world.round(feeds())
            restarts.append(kinds(world).count("restarted"))
        eventually(lambda: producers.answers(COINBASE), "it to be there again")
    assert restarts == [0, 1, *(1, 1, 1, 2), *(2, 2, 3), *(3, 3, 4)]
    assert [over for _, _, over in world.alerts()] == [False]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("marketflow_loop_quiet_seconds 61\n", "its loop has not run for 61 s"),
        ("marketflow_overdue_seconds 121\n", "Its next step by its own plan is 121 s overdue"),
    ],
)
def test_one_that_answers_and_does_nothing_any_more_is_hung_too(world, says, why):
    world.say(more=says)
    world.services(world.producer())
    world.round(feeds())
    eventually(lambda: sources.scrape(world.settings, COINBASE), "it to answer")
    world.round(feeds())
    first = world.pid()
    pass_time(world, 1)
    world.round(feeds())
    assert world.pid() != first
    assert kinds(world)[-1] == "restarted"
    assert why in world.events()[-1][1]


def test_one_whose_venue_is_silent_is_never_restarted(world, monkeypatch):
    monkeypatch.setattr("marketflow_airflow.feed_watch._FEED_PATIENCE_S", 0.0)
    monkeypatch.setenv("MARKETFLOW_FEED_SILENCE_S", "0.1")
    world.say(age_s=1000, more="marketflow_loop_quiet_seconds 0.2\nmarketflow_overdue_seconds 3\n")
    world.services(world.producer())
    world.round(feeds())
    first = world.pid()
    for _ in range(3):
        pass_time(world, 60)
        world.round(feeds())
    assert world.pid() == first
    assert kinds(world)[-1] == "silent"
    assert "restarted" not in kinds(world)


def test_a_flapping_one_is_left_in_its_pause_and_told_once_and_is_well_after_a_long_enough_run(
    world, producers, monkeypatch
):
    producers.forget_pauses(COINBASE)
    producers.crash(COINBASE)
    eventually(lambda: len(producers.pauses_s(COINBASE)) >= 3, "three crashes")

    # a person who starts what is started already changes nothing, whatever the pause
    for asked in ({}, {"by": "ada", "service": COINBASE, "action": "start"}, {}):
        with pytest.raises(AirflowException, match=r"producer-coinbase: It crashed \d+ times in 10 minutes"):
            world.round(feeds(), **asked)
    eventually(lambda: len(producers.pauses_s(COINBASE)) >= 4, "the next pause")
    assert producers.pauses_s(COINBASE)[:4] == [1, 2, 4, 8]
    assert kinds(world).count("flapping") == 1
    assert "Its last words: the venue refused the key" in world.events()[-1][1]
    [(title, body, over)] = world.alerts()
    assert title in ("producer-coinbase is flapping", "producer-coinbase is down")
    assert "the venue refused the key" in json.loads(body)["cause"]
    assert json.loads(body)["command"] == "marketflow logs producer-coinbase"
    assert not over
    assert any("producer-coinbase is flapping: It crashed" in one for one in status.collect(world.settings).problems)

    producers.mend(COINBASE)
    eventually(lambda: producers.answers(COINBASE), "its pause to end")
    with pytest.raises(AirflowException, match="It is running"):  # it has run before, and never for long
        world.round(feeds())
    monkeypatch.setattr("marketflow.services.flapping.CALM_AFTER", timedelta(0))
    world.round(feeds())
    assert world.events()[-1] == ("healthy", "It was flapping and is well.")
    assert [over for _, _, over in world.alerts()] == [True]


def test_a_restart_by_hand_of_what_flaps_and_a_changed_configuration_are_each_tried_once(world, producers, monkeypatch):
    # long enough for a round to see that it fails at once
    monkeypatch.setattr("marketflow_airflow.service_round.SETTLED_S", 5.0)
    producers.crash(COINBASE)
    eventually(lambda: len(world.backend.status()[COINBASE].crashes) >= 3, "three crashes")
    asked = {"by": "ada", "service": COINBASE, "action": "restart"}
    producers.forget_pauses(COINBASE)
    with pytest.raises(AirflowException, match="could not restart it"):
        world.round(feeds(), **asked)
    world._runs -= 1  # Airflow tries the failed task again, in the same run
    eventually(lambda: len(producers.pauses_s(COINBASE)) >= 2, "another crash")
    with pytest.raises(AirflowException):
        world.round(feeds(), **asked)
    assert kinds(world).count("restarted") == 1

    eventually(lambda: len(producers.pauses_s(COINBASE)) >= 3, "three crashes more")
    assert producers.pauses_s(COINBASE)[:3] == [1, 2, 4]
    world.configure(producers.definition(COINBASE, version=2))
    producers.forget_pauses(COINBASE)
    with pytest.raises(AirflowException, match="could not restart it"):
        world.round(feeds())
    eventually(lambda: len(producers.pauses_s(COINBASE)) >= 2, "another crash")
    with pytest.raises(AirflowException):
        world.round(feeds())
    eventually(lambda: len(producers.pauses_s(COINBASE)) >= 3, "three crashes of the new one")
    assert producers.pauses_s(COINBASE)[:3] == [1, 2, 4]
    assert kinds(world).count("restarted") == 2


def test_a_source_that_is_taken_out_stops_and_is_forgotten_and_comes_back_as_a_person_left_it(world, producers):
    both = (producers.definition(COINBASE), producers.definition(COINGECKO))
    world.configure(*both)
    world.round(feeds())
    kept = world.pid(COINBASE)

    world.configure(both[0])
    world.round(feeds())
    assert producers.of(COINGECKO) == []
    assert COINGECKO not in world.backend.status()
    assert world.events(COINGECKO)[-1] == ("stopped", "It is running, but the configuration has it no longer.")
    world.round(feeds())
    assert kinds(world, COINGECKO) == ["started", "stopped"]

    world.configure(*both)
    world.round(feeds())
    assert world.state(COINGECKO) == "running"
    world.round(feeds(), by="ada", service=COINGECKO, action="stop")
    world.configure(both[0])
    world.round(feeds())
    world.configure(*both)
    world.round(feeds())
    assert producers.of(COINGECKO) == []
    assert world.pid(COINBASE) == kept


def test_an_alert_of_what_a_person_stops_is_over(world, producers):
    producers.crash(COINBASE)
    eventually(lambda: len(world.backend.status()[COINBASE].crashes) >= 3, "three crashes")
    with pytest.raises(AirflowException):
        world.round(feeds())
    assert [over for _, _, over in world.alerts()] == [False]
    world.round(feeds(), by="ada", service=COINBASE, action="stop")
    assert [over for _, _, over in world.alerts()] == [True]


# a scheduler whose task does rounds for ever, in a process below it as Airflow's tasks are
SCHEDULER = """
import os, pickle, pathlib, subprocess, sys, time
if sys.argv[1:] != ["task"]:
    subprocess.Popen([sys.executable, __file__, "task"])
    time.sleep(600)
from marketflow.services.supervisor import SupervisorBackend
from marketflow.warehouse.connection import connect
from marketflow_airflow import service_round
settings, definitions = pickle.loads(pathlib.Path(os.environ["GIVEN"]).read_bytes())
service_round.SETTLED_S = 0.3
backend = SupervisorBackend(settings, definitions)
with connect(settings, autocommit=True) as connection:
    while True:
        service_round.Round(connection, backend, {one.name: one for one in definitions}, "run").reconcile()
        print("a round is done", flush=True)
        time.sleep(0.1)
"""


def test_killing_airflow_whole_stops_no_producer_not_even_one_that_its_task_has_started(world, monkeypatch):
    """Producers live below supervisord, whoever asked for their start."""
    producers = Producers(world)
    mine = tuple(producers.definition(name) for name in (COINBASE, COINGECKO))
    given = world.settings.home / "given"
    given.write_bytes(pickle.dumps((world.settings, mine)))
    scheduler = world.stage.definition(
        "airflow-scheduler",
        SCHEDULER,
        group="airflow",
        variables={"GIVEN": str(given), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    world.services(*mine, scheduler)
    world.backend.start("airflow-scheduler")
    eventually(lambda: producers.answers(COINBASE) and producers.answers(COINGECKO), "its task to start both")
    before = {name: world.pid(name) for name in (COINBASE, COINGECKO)}

    for _ in range(2):
        airflow = psutil.Process(eventually(lambda: world.pid("airflow-scheduler"), "the scheduler"))
        assert not {process.pid for process in airflow.children(recursive=True)} & set(before.values())
        for process in [airflow.parent(), airflow, *airflow.children(recursive=True)]:
            if process.is_running():
                os.kill(process.pid, signal.SIGKILL)
        rounds = sum("a round is done" in line for line in world.backend.logs("airflow-scheduler", 10_000))
        assert {name: world.pid(name) for name in before} == before
        # it comes back by itself, and its rounds find nothing to do
        eventually(
            lambda seen=rounds: (
                sum("a round is done" in line for line in world.backend.logs("airflow-scheduler", 10_000)) > seen
            ),
            "a round of the new one",
        )
        assert {name: world.pid(name) for name in before} == before
        assert all(producers.answers(name) for name in before)
    # the first kill may have come between a start and the word of it, which the next whole round then has
    assert {event for name in before for event in kinds(world, name)} == {"started"}


def test_a_round_without_supervisord_or_postgresql_fails_and_the_next_with_them_is_well(world, producers, monkeypatch):
    from marketflow.services.backend import StackDownError

    pid = world.pid()
    with monkeypatch.context() as patch:
        patch.setenv("MARKETFLOW_POSTGRES_PORT", "1")
        with pytest.raises(Exception, match=r"[Cc]onnection"):
            world.round(feeds())
    assert world.pid() == pid
    os.kill(world.backend.client.pid(), signal.SIGKILL)
    eventually(lambda: not world.stage.processes() and not world.stage.machinery(), "all to end")
    with pytest.raises(StackDownError, match="make up"):
        world.round(feeds())
    world.backend.up()
    world.round(feeds())
    eventually(lambda: producers.answers(COINBASE), "the producer to answer")
    world.round(feeds())
    assert [over for _, _, over in world.alerts()] in ([], [True])


def test_a_person_who_stopped_a_hung_one_has_it_stopped(world, producers):
    hang_for_long(world, producers)
    world.round(feeds())
    world.round(feeds(), by="ada", service=COINBASE, action="stop")
    pass_time(world, 60)
    world.round(feeds())
    assert producers.of(COINBASE) == []
    assert kinds(world) == ["started", "hung", "stopped"]
    assert [over for _, _, over in world.alerts()] == [True]
    with connect(world.settings) as connection:
        row = connection.execute("select desired, set_by from ops.service_desired").fetchone()
    assert row == ("stopped", "ada")
