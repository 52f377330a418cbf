"""Dag market_stream on a real supervisord, PostgreSQL and Kafka; the stream is a small program."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import json
import os
from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk.exceptions import AirflowException
from confluent_kafka import Producer
from confluent_kafka.admin import ConfigResource

from marketflow.contracts.topics import CANDLES, MAX_MESSAGE_BYTES, TOPICS, TRADES
from marketflow.stack import airflow, kafka, up
from marketflow.stack.servers import free_ports
from marketflow.warehouse import progress
from marketflow.warehouse.connection import connect
from tests.integration.airflow_services_world import BROKEN, MINUTE, services_world
from tests.integration.services_stage import SLEEPER, eventually


@pytest.fixture
def world(embedded, monkeypatch):
    with services_world(embedded, monkeypatch) as built:
        yield built


def stream():
    from marketflow_airflow.services import StreamOperator

    return StreamOperator


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


def silent_since(world, monkeypatch, age):
    """A stream that runs for longer than that and has said nothing since; its process."""
    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    told(world, "progress", datetime.now(UTC) - age)
    up_for(world, monkeypatch, 2 * age)
    return world.pid("market-stream")


def test_a_stream_that_says_nothing_for_three_minutes_is_restarted_by_the_second_round_that_sees_it(world, monkeypatch):
    before = silent_since(world, monkeypatch, 4 * MINUTE)

    world.round(stream())
    assert world.pid("market-stream") == before
    assert [event for event, _ in world.events("market-stream")] == ["started", "silent"]

    world.execute("update ops.service_event set at = at - interval '1 minute'")
    world.round(stream())
    assert world.pid("market-stream") != before
    assert [event for event, _ in world.events("market-stream")] == ["started", "silent", "restarted"]


def test_a_stream_that_spoke_while_no_round_looked_and_hangs_again_is_restarted_too(world, monkeypatch):
    before = silent_since(world, monkeypatch, 4 * MINUTE)
    world.round(stream())
    world.execute("update ops.service_event set at = at - interval '9 minutes'")
    told(world, "progress", datetime.now(UTC) - 4 * MINUTE, batch_id=2)

    world.round(stream())
    assert world.pid("market-stream") == before
    world.execute("update ops.service_event set at = at - interval '1 minute'")
    world.round(stream())
    assert world.pid("market-stream") != before
    kinds = [event for event, _ in world.events("market-stream")]
    assert kinds == ["started", "silent", "silent", "restarted"]


def test_one_query_that_hangs_is_not_hidden_by_the_others_that_speak(world, monkeypatch):
    before = silent_since(world, monkeypatch, 4 * MINUTE)
    for query, event in (
        ("live_prices", "idle"),
        ("bronze_prices_raw", "progress"),
        ("bronze_quotes_raw", "terminated"),
    ):
        told(world, event, datetime.now(UTC), query=query)

    world.round(stream())
    assert world.pid("market-stream") == before
    kinds = dict(world.events("market-stream"))
    assert "No batch of bronze_trades_raw started, ended or idled for 2" in kinds["silent"]

    world.execute("update ops.service_event set at = at - interval '1 minute'")
    told(world, "progress", datetime.now(UTC), query="bronze_prices_raw", batch_id=2)
    world.round(stream())
    assert world.pid("market-stream") != before
    assert [event for event, _ in world.events("market-stream")][-2:] == ["silent", "restarted"]


def test_a_batch_under_way_has_ten_minutes_whatever_the_others_say(world, monkeypatch):
    before = silent_since(world, monkeypatch, 9 * MINUTE)
    told(world, "started", datetime.now(UTC) - 8 * MINUTE, batch_id=2)
    told(world, "idle", datetime.now(UTC), query="live_prices")
    for _ in range(2):
        world.round(stream())
        world.execute("update ops.service_event set at = at - interval '1 minute'")
    assert world.pid("market-stream") == before


def test_a_batch_of_four_minutes_is_not_told_of_as_silence(world, monkeypatch):
    silent_since(world, monkeypatch, 5 * MINUTE)
    told(world, "started", datetime.now(UTC) - 4 * MINUTE, batch_id=2)
    told(world, "idle", datetime.now(UTC), query="live_prices")
    world.round(stream())
    assert [event for event, _ in world.events("market-stream")] == ["started"]


def test_a_stream_that_is_set_to_work_every_five_minutes_may_be_silent_for_as_long(world, monkeypatch):
    before = silent_since(world, monkeypatch, 6 * MINUTE)
    monkeypatch.setenv("MARKETFLOW_BRONZE_TRIGGER_S", "300")
    for _ in range(2):
        world.round(stream())
        world.execute("update ops.service_event set at = at - interval '1 minute'")
    assert world.pid("market-stream") == before
    assert [event for event, _ in world.events("market-stream")] == ["started"]


def test_a_query_that_this_start_has_not_is_not_waited_for(world, monkeypatch):
    before = silent_since(world, monkeypatch, 60 * MINUTE)
    up_for(world, monkeypatch, 30 * MINUTE)
    told(world, "idle", datetime.now(UTC), query="live_prices")
    for _ in range(2):
        world.round(stream())
        world.execute("update ops.service_event set at = at - interval '1 minute'")
    assert world.pid("market-stream") == before


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
    before = silent_since(world, monkeypatch, 400 * MINUTE)

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


def test_how_far_a_query_has_read_outlives_the_days_for_which_its_topic_is_quiet(world):
    from marketflow_airflow import stream_watch

    world.services()
    now = datetime.now(UTC)
    old = now - timedelta(days=progress.KEPT_DAYS + 1)
    told(world, "progress", old - MINUTE, batch_id=1, end_offsets='{"quiet": {"0": 5}}')
    told(world, "progress", old, batch_id=2, end_offsets='{"quiet": {"0": 9}}')
    told(world, "idle", old + MINUTE, batch_id=2)
    told(world, "idle", now, batch_id=3)
    told(world, "progress", old, query="live_prices")
    with connect(world.settings) as connection:
        assert progress.prune(connection) == 3
        assert stream_watch.read_up_to(connection) == {"quiet": {0: 9}}


def test_a_topic_that_nobody_has_read_is_made_and_one_that_was_read_and_is_gone_is_told(world):
    from marketflow_airflow import services

    name, client = CANDLES.full_name(world.settings.topic_prefix), kafka.admin(world.settings)
    # whatever other tests sent to the other topics is read
    others = {topic: ends for topic, ends in services.end_offsets(world.settings).items() if topic != name}
    told(world, "progress", datetime.now(UTC), end_offsets=json.dumps(others))
    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    client.delete_topics([name])[name].result(30)
    eventually(lambda: name not in services.end_offsets(world.settings), "the topic's end")

    world.round(stream())
    ends = eventually(lambda: services.end_offsets(world.settings).get(name), "the topic")
    assert ends == dict.fromkeys(range(CANDLES.partitions), 0)
    asked = ConfigResource(ConfigResource.Type.TOPIC, name)
    configuration = client.describe_configs([asked])[asked].result(30)
    assert configuration["max.message.bytes"].value == str(MAX_MESSAGE_BYTES)
    assert [event for event, _ in world.events("market-stream")] == ["started"]

    read = json.dumps({name: {"0": 5}})
    told(world, "progress", datetime.now(UTC), query="bronze_candles_raw", end_offsets=read)
    world.round(stream())
    event, detail = world.events("market-stream")[-1]
    assert event == "behind"
    assert f"Kafka holds less of {name} than bronze has read (partition 0 ends at 0, read up to 5)" in detail


def test_what_is_sent_and_read_while_a_round_looks_is_not_taken_for_lost(world, monkeypatch):
    """The stream goes on between two looks: what it read after the ends were asked for is ahead of them."""
    from marketflow_airflow import services

    topic = TRADES.full_name(world.settings.topic_prefix)
    producer = Producer({"bootstrap.servers": world.settings.bootstrap_servers, "compression.type": "zstd"})
    real, moved = services.end_offsets, []

    def and_then_the_stream_goes_on(settings):
        ends = real(settings)
        for _ in range(20):
            producer.produce(topic, b"{}", partition=0)
        producer.flush(30)
        after = real(settings)
        assert after[topic][0] >= ends[topic][0] + 20
        moved.append(after)
        told(world, "progress", datetime.now(UTC), batch_id=2, end_offsets=json.dumps(after))
        return ends

    told(world, "progress", datetime.now(UTC), end_offsets=json.dumps(real(world.settings)))
    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    monkeypatch.setattr(services, "end_offsets", and_then_the_stream_goes_on)
    for _ in range(2):
        world.round(stream())
    assert len(moved) == 2
    assert [event for event, _ in world.events("market-stream")] == ["started"]


def test_without_kafka_a_round_tells_of_that_and_restarts_nothing(world, monkeypatch):
    from marketflow_airflow import services

    away = world.settings.model_copy(update={"kafka_port": free_ports(1)[0]})
    name = "AIRFLOW_CONN_MARKETFLOW_KAFKA"
    # whatever other tests sent is read
    ends = json.dumps(services.end_offsets(world.settings))
    told(world, "progress", datetime.now(UTC) - 4 * MINUTE, end_offsets=ends)
    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    before = world.pid("market-stream")
    monkeypatch.setenv(name, airflow.connections(away)[name])
    up_for(world, monkeypatch, 60 * MINUTE)
    for _ in range(2):
        world.round(stream())
        world.execute("update ops.service_event set at = at - interval '1 minute'")
    assert world.pid("market-stream") == before
    event, detail = world.events("market-stream")[-1]
    assert event == "behind"
    assert "Kafka does not answer" in detail
    # Kafka is back, and the silence that it made is seen for the first time
    monkeypatch.setenv(name, airflow.connections(world.settings)[name])
    world.round(stream())
    assert world.pid("market-stream") == before
    assert [event for event, _ in world.events("market-stream")] == ["started", "behind", "silent"]


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
    # of a stream that a person has restarted since, it is no news
    later = now + MINUTE
    assert stream_watch.conditions(found, later, 30.0) == []
    assert stream_watch.conditions(found, later, 90.0) != []
    assert services.KAFKA_CONNECTION_ID == "marketflow_kafka"
    assert os.environ["AIRFLOW_CONN_MARKETFLOW_KAFKA"]


def test_a_first_service_that_fails_at_once_is_told_before_its_pause_ends(world):
    world.services(world.stage.definition("market-stream", BROKEN, group="stream"))
    with pytest.raises(AirflowException, match="market-stream: could not start it: it is backoff"):
        world.round(stream())
    assert eventually(lambda: world.events("market-stream"), "an event")[0][0] == "down"


def test_up_waits_no_longer_for_rows_of_a_stream_that_flaps(world):
    world.services(world.stage.definition("market-stream", BROKEN, group="stream"))
    world.backend.start("market-stream")
    said, never = [], datetime.now(UTC) + timedelta(days=1)
    assert not up._wait_for_rows(world.settings, world.backend, never, said.append)
    assert len(world.backend.status()["market-stream"].crashes) >= 3
    [told] = said
    assert told.startswith("waiting for live rows no longer: market-stream is flapping. It crashed 3 times")
    assert "`marketflow logs market-stream`" in told


def test_a_restart_that_did_not_help_is_done_again_after_ten_minutes_and_its_alert_lasts_until_a_batch(
    world, monkeypatch
):
    from marketflow_airflow import services

    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    told(world, "progress", datetime.now(UTC) - 4 * MINUTE)
    up_for(world, monkeypatch, 60 * MINUTE)

    restarts = []
    for minutes in (0, 1, 1, 1, 7, 2):
        for table in ("service_event", "stream_progress"):
            world.execute(f"update ops.{table} set at = at - %s", (minutes * MINUTE,))
        world.round(stream())
        restarts.append([event for event, _ in world.events("market-stream")].count("restarted"))
    assert restarts == [0, 1, 1, 1, 1, 2]
    assert [over for _, _, over in world.alerts("market-stream")] == [False]

    # a batch that has read all there is, whatever other tests sent
    ends = services.end_offsets(world.settings)
    read = json.dumps({name: {str(partition): end for partition, end in found.items()} for name, found in ends.items()})
    told(world, "progress", datetime.now(UTC), batch_id=2, end_offsets=read)
    world.round(stream())
    assert [over for _, _, over in world.alerts("market-stream")] == [True]


def test_the_form_of_the_dag_stops_the_stream_and_starts_it_again(world):
    """By Airflow's own loop: the Dag as it is in the project, with what a person filled in."""
    from airflow.dag_processing.dagbag import DagBag

    world.services(world.stage.definition("market-stream", SLEEPER, group="stream"))
    world.round(stream())
    before = world.pid("market-stream")
    airflow_home.fresh_database()
    dag = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags["market_stream"]
    dag.get_task("round").retries = 0  # a test does not wait for what is tried again

    def switched():
        """That it is behind is said as well: other tests of this file have filled its topics."""
        return [one for one in world.events("market-stream") if one[0] in ("started", "stopped")]

    def asked(action, state):
        done = dag.test(run_conf={"service": "market-stream", "action": action, "reason": f"{action} in a test"})
        assert (done.state, world.state("market-stream")) == ("success", state)
        assert world.rows("select service, desired, set_by from ops.service_desired") == [
            ("market-stream", state, "dag_test")
        ]
        event, detail = switched()[-1]
        assert f"{action} in a test" in detail
        return event

    assert asked("stop", "stopped") == "stopped"
    assert asked("start", "running") == "started"
    assert world.pid("market-stream") != before
    assert len(switched()) == 3
