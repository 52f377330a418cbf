"""A lost checkpoint: the stream refuses to double bronze, and a reset lets it go on where the table ends."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from marketflow.contracts.topics import PRICES, TOPICS, TRADES, Topic
from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings
from marketflow.stack import kafka
from marketflow.stack.definitions import definitions
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import schema
from tests.integration.airflow_services_world import World, services_world
from tests.integration.services_stage import MARK, eventually
from tests.stream_stage import RUNNING, bronze_rows

STREAM = "market-stream"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Servers of its own: topics are taken away here."""
    with temporary_stack(tmp_path_factory.mktemp("reset"), spark_driver_memory="600m") as settings:
        schema.apply(settings)
        yield settings


def job(settings: Settings, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One program of spark_jobs/, as a person runs it."""
    command = [sys.executable, str(PROJECT_FOLDER / "spark_jobs" / f"{name}.py"), *arguments]
    return subprocess.run(
        command, env=embedded_environment(settings), capture_output=True, text=True, timeout=200, check=False
    )


def reset(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return job(settings, "stream_reset", "--approved-by", "ada", "--fence-wait-s", "0", *arguments)


def send(settings: Settings, topic: Topic, first: int, count: int) -> None:
    """Numbered records over all partitions."""
    client = Producer({"bootstrap.servers": settings.bootstrap_servers})
    for number in range(first, first + count):
        client.produce(
            topic.full_name(settings.topic_prefix),
            key=str(number),
            value=str(number).encode(),
            partition=number % topic.partitions,
            headers=[("venue", b"x"), ("received_at", b"2026-11-20T00:00:00Z")],
        )
    assert client.flush(30) == 0


def numbers(settings: Settings, topic: Topic) -> list[int]:
    """What bronze holds, by the records' own numbers."""
    return sorted(int(value) for value in bronze_rows(settings, topic)["value"].to_pylist())


def checkpoint(settings: Settings, topic: Topic) -> Path:
    return Path(settings.checkpoints.removeprefix("file://")) / f"bronze_{topic.bronze}"


@pytest.fixture
def world(own: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The stream as its service, under a supervisord of its own."""
    for name, value in {"SPARK_DRIVER_MEMORY": "600m", "BRONZE_TRIGGER_S": "1", "LIVE_TRIGGER_S": "1"}.items():
        monkeypatch.setenv(f"MARKETFLOW_{name}", value)
    with services_world(own, monkeypatch) as built:
        (real,) = (one for one in definitions(own) if one.name == STREAM)
        # by the mark the end of the world sees whether any process of it is left
        built.services(replace(real, environment={**real.environment, MARK: str(own.home)}))
        yield built


@pytest.fixture
def stream_reset(world: World, monkeypatch: pytest.MonkeyPatch) -> DAG:
    """The Dag, as `airflow dags test` reads it."""
    airflow_home.fresh_database()
    monkeypatch.setattr(sys, "argv", ["airflow", "dags", "test"])
    from airflow.dag_processing.dagbag import DagBag

    dag = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags["stream_reset"]
    for task in dag.tasks:
        task.retries = 0
    return dag


def test_a_lost_checkpoint_doubles_nothing_and_the_dag_lets_the_stream_go_on_where_bronze_ends(
    own: Settings, world: World, stream_reset: DAG
) -> None:
    send(own, TRADES, 0, 100)
    send(own, PRICES, 0, 20)
    world.backend.start(STREAM)
    eventually(lambda: any(RUNNING in line for line in world.backend.logs(STREAM, 50)), "the stream to run", 150)
    eventually(lambda: (len(numbers(own, TRADES)), len(numbers(own, PRICES))) == (100, 20), "both topics", 60)

    # the checkpoint of one query is lost, and more has come meanwhile
    world.backend.stop(STREAM)
    shutil.rmtree(checkpoint(own, TRADES))
    send(own, TRADES, 100, 30)
    world.backend.start(STREAM)
    gone = "the checkpoint of bronze_trades_raw is gone"
    words = eventually(lambda: [one for one in world.backend.logs(STREAM, 50) if gone in one], "its refusal", 150)
    assert "stream_reset" in words[-1]
    assert numbers(own, TRADES) == list(range(100))

    planned = job(own, "stream_reset", "--plan", "--topics", "trades")
    assert planned.returncode == 0, planned.stderr
    (line,) = (json.loads(text) for text in planned.stdout.splitlines() if text.startswith("{"))
    assert (line["query"], line["unread"], sum(line["offsets"].values())) == ("bronze_trades_raw", 30, 100)
    assert not checkpoint(own, TRADES).exists()

    done = stream_reset.test(run_conf={"approved_by": "ada"})
    assert {one.task_id: str(one.state) for one in done.get_task_instances()} == dict.fromkeys(
        ("plan", "approve", "reset", "start"), "success"
    )
    assert sorted(one["topic"] for one in said("plan")) == sorted(one.full_name(own.topic_prefix) for one in TOPICS)
    assert [one["approved_by"] for one in said("reset")] == ["ada"] * len(TOPICS)
    assert world.rows("select desired, set_by from ops.service_desired") == [
        ("running", f"ada, stream_reset {done.run_id}")
    ]
    assert [event for event, _ in world.events(STREAM)][-2:] == ["stopped", "started"]
    eventually(lambda: len(numbers(own, TRADES)) >= 130, "the stream to go on", 200)
    send(own, PRICES, 20, 5)
    eventually(lambda: len(numbers(own, PRICES)) >= 25, "what has come since", 60)
    assert (numbers(own, TRADES), numbers(own, PRICES)) == (list(range(130)), list(range(25)))
    # the one that was whole lies aside
    assert any((checkpoint(own, TRADES).parent / "reset").glob("bronze_prices_raw-*/offsets/0"))

    # while the stream runs there is no reset
    busy = reset(own)
    assert (busy.returncode, "stop service market-stream first" in busy.stderr) == (75, True)
    world.backend.stop(STREAM)

    # a topic that was made anew has other records under the same offsets
    admin = AdminClient({"bootstrap.servers": own.bootstrap_servers})
    name = TRADES.full_name(own.topic_prefix)
    admin.delete_topics([name])[name].result(30)
    kafka.create_topics(own)
    send(own, TRADES, 500, 3)
    another = reset(own)
    assert another.returncode == 1
    assert "it is another topic" in another.stderr
    assert checkpoint(own, TRADES).exists()


def said(task_id: str) -> list[dict[str, Any]]:
    """What a task of the newest run returned, as the metadata database has it."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.query(XComModel).filter_by(task_id=task_id, key="return_value").order_by(XComModel.timestamp)
        newest: list[dict[str, Any]] = XComModel.deserialize_value(rows.all()[-1])
        return newest
