"""Dags producers and market_stream on a real supervisord, PostgreSQL and Kafka; the services are small programs."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import json
import os
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException
from confluent_kafka import Producer

from marketflow.contracts.topics import TOPICS, TRADES
from marketflow.services.supervisor import SupervisorBackend
from marketflow.stack import airflow
from marketflow.stack.servers import free_ports
from marketflow.warehouse import ledger, progress
from marketflow.warehouse.connection import connect
from tests.integration.services_stage import SLEEPER, Stage, eventually

# a producer in its metrics alone: what it says is in a file
SAYS = """
import http.server, os, pathlib
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = pathlib.Path(os.environ["SAYS"]).read_bytes()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
BROKEN = "import sys\nprint('MARKETFLOW_PRODUCTS: unknown product XYZ')\nsys.exit(2)"
MINUTE = timedelta(minutes=1)


class World:
    """One supervisord with chosen programs as services, and rounds over them."""

    def __init__(self, settings, monkeypatch):
        self.settings, self._monkeypatch = settings, monkeypatch
        self.stage = Stage(settings.home)
        self.says = settings.home / "says"
        self._runs = 0

    def producer(self, **more):
        variables = {"SAYS": str(self.says), "PORT": str(self.settings.producer_coinbase_metrics_port)}
        return self.stage.definition("producer-coinbase", SAYS, variables={**variables, **more})

    def services(self, *definitions):
        """Replace what is defined, as a changed configuration does."""
        self._monkeypatch.setattr("marketflow.stack.backend.definitions", lambda _: definitions)
        self.backend = SupervisorBackend(self.settings, definitions)
        self.backend.up()

    def say(self, *, age_s=0.0, queue=0, more=""):
        at = time.time() - age_s
        self.says.write_text(
            "# HELP marketflow_queue_messages Messages received\n"
            f'marketflow_last_message_timestamp_seconds{{venue="coinbase_exchange"}} {at!r}\n'
            f'marketflow_queue_messages{{venue="coinbase_exchange"}} {queue}\n{more}'
        )

    def round(self, operator, *, by=None, **params):
        self._runs += 1
        run = SimpleNamespace(dag_id="producers", run_id=f"run {self._runs}", triggering_user_name=by, conf=params)
        operator(task_id="round").execute({"dag_run": run, "params": params})

    def rows(self, query):
        with connect(self.settings) as connection:
            return connection.execute(query).fetchall()

    def execute(self, *statement):
        with connect(self.settings, autocommit=True) as connection:
            connection.execute(*statement)

    def events(self, service="producer-coinbase"):
        query = "select service, event, detail from ops.service_event order by at"
        return [(event, detail) for name, event, detail in self.rows(query) if name == service]

    def state(self, name="producer-coinbase"):
        return self.backend.status()[name].state

    def pid(self, name="producer-coinbase"):
        return self.backend.status()[name].pid


def rounds_until_one_fails(world):
    """In between a service that fails at once is `starting`, each time it is tried again, and a round says nothing."""
    for _ in range(60):
        world.round(feeds())
        time.sleep(0.5)


@pytest.fixture
def world(embedded, monkeypatch):
    port = free_ports(1)[0]
    ports = {name: getattr(embedded, name) for name in ("postgres_port", "kafka_port", "s3_port")}
    for name, value in {**ports, "home": embedded.home, "producer_coinbase_metrics_port": port}.items():
        monkeypatch.setenv(f"MARKETFLOW_{name.upper()}", str(value))
    for name, value in airflow.connections(embedded).items():
        monkeypatch.setenv(name, value)
    built = World(embedded.model_copy(update={"producer_coinbase_metrics_port": port}), monkeypatch)
    for table in ("service_desired", "service_event", "stream_progress", "trade_gap", "quota_usage"):
        built.execute(f"truncate ops.{table}")
    yield built
    built.backend.shutdown()
    assert built.stage.processes() == {}


def feeds():
    from marketflow_airflow.services import FeedsOperator

    return FeedsOperator


def stream():
    from marketflow_airflow.services import StreamOperator

    return StreamOperator


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
    with pytest.raises(AirflowException, match=r"producer-coingecko: It should run and is backoff"):
        rounds_until_one_fails(world)
    assert [event for event, _ in world.events("producer-coingecko")] == ["down"]
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

    world.say(queue=3)
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
        (facts,), conditions = feed_watch.look(world.settings, connection, world.backend.status())
    assert (facts.queue_messages, facts.open_gaps, facts.missing_trades, facts.calls_left) == (3, 2, 11, None)
    assert 0 <= facts.last_message_age_s < 60
    assert conditions == []


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


# the stream


def told(world, event, at, *, query="bronze_trades_raw", batch_id=1, **measures):
    with connect(world.settings) as connection:
        progress.write(connection, [progress.ProgressEvent(query, "run", batch_id, event, at, **measures)], {})


def up_for(world, monkeypatch, age):
    """The stream's service, as if it had been started `age` ago."""
    from marketflow.services import supervisor

    real = supervisor._status
    monkeypatch.setattr(supervisor, "_status", lambda *given: _older(real(*given), age.total_seconds()))


def _older(status, seconds):
    from dataclasses import replace

    return replace(status, uptime_s=seconds) if status.state == "running" else status


def test_a_stream_that_says_nothing_for_three_minutes_is_restarted_by_the_second_round_that_sees_it(world, monkeypatch):
    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    before = world.pid("market-stream")
    told(world, "progress", datetime.now(UTC) - 4 * MINUTE)
    up_for(world, monkeypatch, 60 * MINUTE)

    world.round(stream())
    assert world.pid("market-stream") == before
    assert [event for event, _ in world.events("market-stream")] == ["started", "silent"]

    world.execute("update ops.service_event set at = at - interval '1 minute'")
    world.round(stream())
    assert world.pid("market-stream") != before
    assert [event for event, _ in world.events("market-stream")] == ["started", "silent", "restarted"]


@pytest.mark.parametrize("event", ["started", "progress", "idle", "terminated"])
def test_a_stream_that_said_anything_lately_is_left_alone(world, monkeypatch, event):
    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    before = world.pid("market-stream")
    told(world, event, datetime.now(UTC) - MINUTE)
    up_for(world, monkeypatch, 60 * MINUTE)

    world.round(stream())
    world.execute("update ops.service_event set at = at - interval '1 minute'")
    world.round(stream())

    assert world.pid("market-stream") == before
    expected = ["started", "behind"] if event == "terminated" else ["started"]
    assert [kind for kind, _ in world.events("market-stream")] == expected


def test_a_stream_that_came_back_after_the_machine_slept_is_not_restarted(world, monkeypatch):
    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    before = world.pid("market-stream")
    told(world, "progress", datetime.now(UTC) - 400 * MINUTE)
    up_for(world, monkeypatch, 600 * MINUTE)

    world.round(stream())
    world.execute("update ops.service_event set at = at - interval '1 minute'")
    told(world, "progress", datetime.now(UTC), batch_id=2)
    world.round(stream())

    assert world.pid("market-stream") == before
    assert [event for event, _ in world.events("market-stream")] == ["started", "silent", "healthy"]


def test_lag_is_kafkas_end_against_what_bronze_has_read(world):
    from marketflow_airflow import services, stream_watch

    world.services()
    topic = TRADES.full_name(world.settings.topic_prefix)
    producer = Producer({"bootstrap.servers": world.settings.bootstrap_servers, "compression.type": "zstd"})
    ends_before = services.end_offsets(world.settings)
    assert set(ends_before) == {one.full_name(world.settings.topic_prefix) for one in TOPICS}
    for number in range(11_000):
        producer.produce(topic, str(number).encode(), partition=number % 2)
    producer.flush(30)

    ends = services.end_offsets(world.settings)
    assert ends[topic][0] - ends_before[topic][0] == 5_500
    read = {name: {str(partition): end for partition, end in found.items()} for name, found in ends_before.items()}
    now = datetime.now(UTC)
    for number, (name, offsets) in enumerate(read.items()):
        told(world, "progress", now, query=f"bronze_{number}", end_offsets=json.dumps({name: offsets}), input_rows=300)
    with connect(world.settings) as connection:
        found = stream_watch.read(connection, ends)
    assert found.lag_messages == 11_000
    assert found.input_rows_per_s == pytest.approx(4 * 300 / 300)
    (condition,) = stream_watch.conditions(found, now, 3600.0)
    assert condition.event == "behind"
    assert condition.detail.startswith("11000 messages are not in bronze yet; 4 rows/s arrive")


def test_a_query_that_ended_while_the_others_go_on_is_told(world):
    from marketflow_airflow import services, stream_watch

    world.services()
    now = datetime.now(UTC)
    told(world, "progress", now)
    told(world, "terminated", now, query="live_prices", error="PSQLException: connection refused")
    with connect(world.settings) as connection:
        found = stream_watch.read(connection, {})
    assert [one.detail for one in stream_watch.conditions(found, now, 3600.0)] == [
        "live_prices ended: PSQLException: connection refused."
    ]
    assert services.KAFKA_CONNECTION_ID == "marketflow_kafka"
    assert os.environ["AIRFLOW_CONN_MARKETFLOW_KAFKA"]


def test_a_first_service_that_fails_at_once_is_told_before_its_pause_ends(world):
    world.services(world.stage.definition("market-stream", BROKEN, group="stream"))
    with pytest.raises(AirflowException, match="market-stream: could not start it: it is backoff"):
        world.round(stream())
    assert eventually(lambda: world.events("market-stream"), "an event")[0][0] == "down"
