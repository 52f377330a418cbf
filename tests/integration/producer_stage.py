"""The simulator and a producer as the processes they are, and what Kafka holds, read without any of our code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from marketflow.settings import Settings
from marketflow.stack.servers import free_ports

PATIENCE_S = 60


Answer = TypeVar("Answer")


def until(question: Callable[[], Answer], what: str) -> Answer:
    """Ask until the answer is true; what the test waits for is named where it never comes."""
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit:
        answer = question()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError(f"never came: {what}")


def environment(settings: Settings, **changes: object) -> dict[str, str]:
    """The settings of a child process: those of the running stack, and what the test changes."""
    told = {
        "home": settings.home,
        "dataset": settings.dataset,
        "postgres_port": settings.postgres_port,
        "kafka_port": settings.kafka_port,
        **changes,
    }
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MARKETFLOW_")}
    return kept | {f"MARKETFLOW_{name.upper()}": str(value) for name, value in told.items()}


@dataclass
class Process:
    """A child process whose output is a file."""

    child: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The producer's events of that name."""
        lines = (line for line in self.output.splitlines() if line.startswith("{"))
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.child.send_signal(signal.SIGTERM)
        return self.child.wait(60)

    def kill(self) -> None:
        """SIGKILL."""
        self.child.kill()
        self.child.wait(60)


@contextmanager
def running(module: str, *arguments: str, log: Path, env: dict[str, str]) -> Iterator[Process]:
    """`python -m module` until the block ends."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdout=output, stderr=subprocess.STDOUT, env=env
        )
    try:
        yield Process(child, log)
    finally:
        if child.poll() is None:
            child.kill()
            child.wait(60)


class Tape:
    """The truth's file of trades, each line of which is read once: it grows while tests wait for it to."""

    def __init__(self, path: Path) -> None:
        self._path, self._read_bytes = path, 0
        self._facts: list[dict[str, Any]] = []

    def facts(self) -> list[dict[str, Any]]:
        """Every trade so far; a line that is being written is left out."""
        with self._path.open("rb") as file:
            file.seek(self._read_bytes)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._facts += map(json.loads, whole.splitlines())
            self._read_bytes += len(whole) + 1
        return self._facts


@dataclass
class Market:
    """A running simulator of one product, and its truth."""

    process: Process
    folder: Path
    product: str
    ports: dict[str, int]
    # shared by those that `replace` makes of it for another product
    tape: Tape | None = None

    def __post_init__(self) -> None:
        self.tape = self.tape or Tape(self.folder / "truth" / "trades.ndjson")

    def truth(self) -> dict[int, dict[str, Any]]:
        """Every trade that was made, by id."""
        assert self.tape is not None
        return {fact["trade_id"]: fact for fact in self.tape.facts() if fact["product_id"] == self.product}

    def control(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Order something."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['simulator_rest_port']}/control/{path}",
            method="GET" if path == "status" else "POST",
            data=json.dumps(body or {}).encode(),
        )
        with urllib.request.urlopen(request) as answer:
            return dict(json.load(answer))


@contextmanager
def market(settings: Settings, folder: Path, product: str, *arguments: str) -> Iterator[Market]:
    """The simulator, ready, on free ports and with a home of its own."""
    ports = dict(zip(("simulator_ws_port", "simulator_rest_port"), free_ports(2), strict=True))
    folder.mkdir()
    env = environment(settings, **{"home": folder, "products": product, **ports})
    with running("marketflow.simulator", "--no-tape", *arguments, log=folder / "log", env=env) as process:
        until(lambda: "simulator ready" in process.output or process.child.poll() is not None, "the simulator")
        assert process.child.poll() is None, process.output
        yield Market(process, folder, product, ports)


@contextmanager
def producer(settings: Settings, made: Market, venue: str, name: str, **changes: object) -> Iterator[Process]:
    """The producer of a venue, reading from that simulator."""
    (port,) = free_ports(1)
    metrics = {"producer_coinbase_metrics_port": port, "producer_coingecko_metrics_port": port}
    env = environment(settings, **{"products": made.product, **made.ports, **metrics, **changes})
    with running("marketflow.ingest", venue, log=made.folder / name, env=env) as process:
        yield process


@dataclass
class Stored:
    """One Kafka record."""

    key: str
    value: bytes
    headers: dict[str, str] = field(default_factory=dict)


def _watermarks(consumer: Consumer, topic: str, partition: int) -> tuple[int, int] | None:
    """First and next offset; None while a broker that has just started does not lead the partition yet."""
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, partition))
    except KafkaException as error:
        if error.args[0].code() == KafkaError.NOT_LEADER_FOR_PARTITION:
            return None
        raise


def stored(settings: Settings, topic: str, key: str) -> list[Stored]:
    """Every record of a key, in order, as the broker has it."""
    consumer = Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{settings.kafka_port}",
            "group.id": "judge",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 10 * 1024**2,
        }
    )
    try:
        ends = {}
        for partition in consumer.list_topics(topic).topics[topic].partitions:
            low, high = until(lambda p=partition: _watermarks(consumer, topic, p), "a leader of the partition")  # type: ignore[misc]
            if high > low:
                ends[partition] = high
        consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
        found = []
        while ends:
            for message in consumer.consume(500, timeout=0.1):
                assert message.error() is None, message.error()
                if message.offset() + 1 >= ends.get(message.partition(), 0):
                    ends.pop(message.partition(), None)
                if message.key() == key.encode():
                    headers = {name: text.decode() for name, text in message.headers() or []}
                    found.append(Stored(key, message.value() or b"", headers))
        return found
    finally:
        consumer.close()


def ids(records: list[Stored]) -> list[int]:
    """Trade ids of the good matches among the records, found by pattern and not by a parser."""
    found = (re.search(rb'"trade_id":\s*(\d+)', each.value) for each in records if each.headers["channel"] == "matches")
    return [int(match[1]) for match in found if match]
