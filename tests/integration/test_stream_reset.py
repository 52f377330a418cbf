"""A lost checkpoint: the stream refuses to double bronze, and a reset lets it go on where the table ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from marketflow.contracts.topics import PRICES, TRADES, Topic
from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings
from marketflow.stack import kafka
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import fence
from marketflow.warehouse.locks import table_lock
from tests.stream_stage import bronze_rows


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Servers of its own: topics are taken away here."""
    with temporary_stack(tmp_path_factory.mktemp("reset"), spark_driver_memory="600m") as settings:
        yield settings


def job(settings: Settings, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One program of spark_jobs/, as a person runs it."""
    command = [sys.executable, str(PROJECT_FOLDER / "spark_jobs" / f"{name}.py"), *arguments]
    return subprocess.run(
        command, env=embedded_environment(settings), capture_output=True, text=True, timeout=200, check=False
    )


def drain(settings: Settings) -> subprocess.CompletedProcess[str]:
    return job(settings, "stream_market", "--available-now", "--fence-wait-s", "0")


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


def test_a_lost_checkpoint_doubles_nothing_and_a_reset_goes_on_where_bronze_ends(own: Settings) -> None:
    send(own, TRADES, 0, 100)
    send(own, PRICES, 0, 20)
    assert drain(own).returncode == 0
    assert (numbers(own, TRADES), numbers(own, PRICES)) == (list(range(100)), list(range(20)))

    # the checkpoint of one query is lost, and more has come meanwhile
    shutil.rmtree(checkpoint(own, TRADES))
    send(own, TRADES, 100, 30)
    refused = drain(own)
    assert refused.returncode == 1
    assert "the checkpoint of bronze_trades_raw is gone" in refused.stderr
    assert "stream_reset" in refused.stderr
    assert numbers(own, TRADES) == list(range(100))

    planned = job(own, "stream_reset", "--plan", "--topics", "trades")
    assert planned.returncode == 0, planned.stderr
    (line,) = (json.loads(text) for text in planned.stdout.splitlines() if text.startswith("{"))
    assert (line["query"], line["unread"], sum(line["offsets"].values())) == ("bronze_trades_raw", 30, 100)
    assert not checkpoint(own, TRADES).exists()

    # while the stream runs there is no reset: this process holds the stream's lock
    with table_lock(own, fence.CHECKPOINT):
        busy = reset(own)
    assert (busy.returncode, "stop service market-stream first" in busy.stderr) == (75, True)

    done = reset(own)
    assert done.returncode == 0, done.stderr
    assert drain(own).returncode == 0
    assert (numbers(own, TRADES), numbers(own, PRICES)) == (list(range(130)), list(range(20)))
    # the one that was whole lies aside, and a second drain has nothing to do
    assert any((checkpoint(own, TRADES).parent / "reset").glob("bronze_prices_raw-*/offsets/0"))
    send(own, PRICES, 20, 5)
    assert drain(own).returncode == 0
    assert (numbers(own, TRADES), numbers(own, PRICES)) == (list(range(130)), list(range(25)))

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
