"""What the stream's tests share: the application as a process, producing, and reading bronze without Spark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from confluent_kafka import Producer

from marketflow.contracts.topics import Topic
from marketflow.lake import readers
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import Settings

RUNNING = "queries are running"


class StreamProcess:
    """spark_jobs/stream_market.py as its supervisor starts it, with one-second triggers."""

    def __init__(self, settings: Settings, log: Path, *arguments: str, **overrides: str) -> None:
        given = {
            name: getattr(settings, name)
            for name in ("home", "dataset", "postgres_port", "kafka_port", "kafka_controller_port", "s3_port")
        } | {"bronze_trigger_s": 1, "live_trigger_s": 1, "max_offsets_per_trigger": 4000, "spark_driver_memory": "600m"}
        environment = os.environ | {
            f"MARKETFLOW_{name.upper()}": str(value) for name, value in (given | overrides).items()
        }
        self.log = log
        command = [sys.executable, str(PROJECT_FOLDER / "spark_jobs" / "stream_market.py"), *arguments]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, env=environment, start_new_session=True, cwd="/"
            )

    def wait_for_line(self, text: str, timeout_s: float = 150) -> None:
        """Until the log holds this text."""
        wait_until(lambda: text in self.log.read_text() or self.process.poll() is not None, timeout_s)
        assert text in self.log.read_text(), self.log.read_text()[-3000:]

    def said(self) -> list[str]:
        """The application's own lines."""
        return [line for line in self.log.read_text().splitlines() if line.startswith("stream: ")]

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)

    def kill(self) -> None:
        """Kill -9 of driver and JVM at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def running(settings: Settings, log: Path, *arguments: str, **overrides: str) -> Iterator[StreamProcess]:
    """The application, gone at the end whatever happened."""
    stream = StreamProcess(settings, log, *arguments, **overrides)
    try:
        yield stream
    finally:
        if group_lives(stream.process.pid):
            os.killpg(stream.process.pid, signal.SIGKILL)
        stream.process.wait(10)


def group_lives(group: int) -> bool:
    """Whether any process of the group is left, other than one that only waits to be collected."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Poll until true; AssertionError after the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.1)


def producer(settings: Settings) -> Producer:
    """An idempotent producer."""
    return Producer(
        {"bootstrap.servers": settings.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5, "log_level": 3}
    )


def produce_numbers(settings: Settings, topic: Topic, numbers: range, per_s: float | None = None) -> None:
    """Each number as the value of one message, spread over the partitions; returns when all are acknowledged."""
    client, name = producer(settings), topic.full_name(settings.topic_prefix)
    began = time.monotonic()
    for count, number in enumerate(numbers):
        client.produce(name, str(number).encode(), partition=number % topic.partitions)
        if count % 500 == 0:
            client.poll(0)
            if per_s:
                time.sleep(max(0.0, began + count / per_s - time.monotonic()))
    assert client.flush(60) == 0


def bronze_rows(settings: Settings, topic: Topic) -> pa.Table:
    """The whole bronze table, by pyiceberg."""
    return readers.load(settings, f"bronze.{topic.bronze}")


def assert_exactly_once(settings: Settings, topic: Topic, produced: int) -> None:
    """Each produced number is there once, and each partition's offsets run from 0 without a hole."""
    rows = bronze_rows(settings, topic)
    assert sorted(int(value) for value in rows["value"].to_pylist()) == list(range(produced))
    offsets: dict[int, list[int]] = {}
    for partition, offset in zip(rows["partition"].to_pylist(), rows["offset"].to_pylist(), strict=True):
        offsets.setdefault(partition, []).append(offset)
    assert {partition: sorted(found) for partition, found in offsets.items()} == {
        partition: list(range(len(found))) for partition, found in offsets.items()
    }
