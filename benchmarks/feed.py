"""What one feed process carries: a simulated Coinbase Exchange at full speed, and at 1,000 messages a second.

Starts its own Kafka and PostgreSQL under a temporary folder and one real producer. The exchange is the simulator's
framing with messages made as fast as the reader takes them (a match and, every third time, its ticker; ids without a
hole), since the simulator's whole market would need the processor that is to be measured. Writes
benchmarks/results/feed.json.

    .venv/bin/python -m benchmarks.feed [--messages 10000000] [--seconds 60]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.server import ServerConnection, serve

from benchmarks.results_file import write
from marketflow.contracts.topics import TICKER, TRADES
from marketflow.settings import Settings
from marketflow.simulator.feed_messages import frame
from marketflow.simulator.texts import rfc3339_us
from marketflow.stack.servers import free_ports, temporary_stack

PRODUCTS = ("BTC-USD", "ETH-USD")
BATCH = 500
SOCKET_BYTES = 4 * 1024**2
WARM_UP_MESSAGES = 100_000
BOUND_MS = 50.0


def batch(first: int, messages: int, now_us: int) -> bytes:
    """Frames of about `messages` messages: matches from number `first`, each third with its ticker."""
    frames, number, at = [], first, rfc3339_us(now_us)
    while len(frames) < messages:
        product, trade_id = PRODUCTS[number % 2], 1_000_000 + number // 2
        frames.append(
            frame(
                f'{{"type":"match","trade_id":{trade_id},"maker_order_id":"b1c0b3a4-9a2f-4f0e-9a55-3f1f0c3f7f01",'
                f'"taker_order_id":"0e5f8f3c-7f3f-4d7b-8c0e-6a1c1a1d9c02","side":"sell","size":"0.00136573",'
                f'"price":"60000.01","product_id":"{product}",'
                f'"sequence":{5_000_000_000 + number},"time":"{at}"}}'.encode()
            )
        )
        if number % 3 == 0:
            frames.append(
                frame(
                    f'{{"type":"ticker","sequence":{5_000_000_000 + number},"product_id":"{product}",'
                    f'"price":"60000.01","open_24h":"59000.00","volume_24h":"100.00000000","low_24h":"58000.00","high_24h":"61000.00",'
                    f'"volume_30d":"3000.00000000","best_bid":"60000.00","best_bid_size":"0.61540890",'
                    f'"best_ask":"60000.01","best_ask_size":"0.18528568","side":"buy","time":"{at}",'
                    f'"trade_id":{trade_id},"last_size":"0.00136573"}}'.encode()
                )
            )
        number += 1
    return b"".join(frames)


def matches_of(frames: int) -> int:
    """How many matches a batch of that many frames begins: four frames are three matches and a ticker."""
    return frames * 3 // 4


async def exchange(port: int, messages: int, per_s: float | None) -> None:
    """Serve one reader: `messages` as fast as it reads, or `per_s` of them a second; then stay until it leaves."""
    gone = asyncio.Event()

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.set_write_buffer_limits(high=SOCKET_BYTES)
        sent, number, began = 0, 0, time.monotonic()
        size = BATCH if per_s is None else max(4, int(per_s / 50) // 4 * 4)
        while sent < messages:
            connection.transport.write(batch(number, size, time.time_ns() // 1000))
            number += matches_of(size)
            sent += size
            if per_s is not None:
                await asyncio.sleep(max(0.0, began + sent / per_s - time.monotonic()))
            else:
                await asyncio.sleep(0)
            while connection.transport.get_write_buffer_size() > SOCKET_BYTES:
                await asyncio.sleep(0.001)
        with contextlib.suppress(Exception):  # whatever it says and however it leaves
            async for _ in connection:
                pass
        gone.set()

    async with serve(handle, "127.0.0.1", port, compression=None):
        await gone.wait()


def run_exchange(port: int, messages: int, per_s: float | None) -> None:
    """In a process of its own."""
    asyncio.run(exchange(port, messages, per_s))


@contextlib.contextmanager
def feed(settings: Settings, folder: Path, messages: int, per_s: float | None) -> Iterator[tuple[psutil.Process, int]]:
    """An exchange and the producer that listens to it; yields the producer and its metrics port."""
    ws_port, metrics_port = free_ports(2)
    venue = multiprocessing.get_context("spawn").Process(target=run_exchange, args=(ws_port, messages, per_s))
    venue.start()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")},
        "MARKETFLOW_HOME": str(settings.home),
        "MARKETFLOW_KAFKA_PORT": str(settings.kafka_port),
        "MARKETFLOW_POSTGRES_PORT": str(settings.postgres_port),
        "MARKETFLOW_SOURCES": "coinbase_exchange",
        "MARKETFLOW_PRODUCTS": ",".join(PRODUCTS),
        "MARKETFLOW_COINBASE_WS_URL": f"ws://127.0.0.1:{ws_port}/",
        "MARKETFLOW_PRODUCER_COINBASE_METRICS_PORT": str(metrics_port),
    }
    with (folder / f"feed-{per_s}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "marketflow.ingest", "coinbase_exchange"], env=environment, stdout=log, stderr=log
        )
        try:
            yield psutil.Process(child.pid), metrics_port
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(60)
            venue.join(30)
            if venue.is_alive():
                venue.terminate()


def metrics(port: int) -> dict[str, float]:
    """The producer's samples, summed over labels; none where it does not answer yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            told = answer.read().decode()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def full_speed(settings: Settings, folder: Path, messages: int) -> dict[str, Any]:
    """Messages a second until Kafka has them all, and the producer's memory on the way."""
    with feed(settings, folder, messages, None) as (producer, port):
        memory, began, before, spent = [], 0.0, 0.0, 0.0
        step = messages // 10
        while True:
            delivered = metrics(port).get("marketflow_delivered_total", 0.0)
            if not began and delivered >= WARM_UP_MESSAGES:
                began, before, spent = time.monotonic(), delivered, sum(producer.cpu_times()[:2])
            if began and delivered >= (len(memory) + 1) * step:
                memory.append(producer.memory_info().rss // 1024**2)
            if delivered >= messages:
                break
            time.sleep(0.1)
        seconds = time.monotonic() - began
        cpu = sum(producer.cpu_times()[:2]) - spent
        said = metrics(port)
    return {
        "messages": int(said["marketflow_delivered_total"]),
        "messages_per_s": round((delivered - before) / seconds),
        "processor_share_of_one_core": round(cpu / seconds, 2),
        "missing_trades_seen": int(said.get("marketflow_missing_trades_total", 0)),
        "reconnects": int(said.get("marketflow_reconnects_total", 0)),
        "memory_mib_at_each_tenth": memory,
    }


def steady(settings: Settings, folder: Path, per_s: float, seconds: float) -> dict[str, Any]:
    """From the frame's receipt to a consumer's hands, hence at least as long as to the acknowledgement."""
    consumer = Consumer(
        {"bootstrap.servers": settings.bootstrap_servers, "group.id": "benchmark", "enable.auto.commit": False}
    )
    # topics that are as new as their broker: all there is in them is what is measured
    places = [
        TopicPartition(topic.full_name(settings.topic_prefix), partition, OFFSET_BEGINNING)
        for topic in (TRADES, TICKER)
        for partition in range(topic.partitions)
    ]
    consumer.assign(places)
    waits: list[float] = []
    with feed(settings, folder, int(per_s * (seconds + 5)), per_s):
        end = None
        while end is None or time.monotonic() < end:
            for message in consumer.consume(500, timeout=0.02):
                end = end or time.monotonic() + seconds
                received = dict(message.headers() or ())["received_at"]
                waits.append(time.time() * 1000 - int(received) / 1000)
    consumer.close()
    ordered = sorted(waits[int(per_s) :])
    return {
        "messages_per_s": per_s,
        "messages": len(ordered),
        "received_to_consumer_ms": {
            name: round(ordered[int(len(ordered) * share)], 1)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        },
        "bound_p95_ms": BOUND_MS,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder, temporary_stack(Path(folder) / "home") as settings:
        result = {
            "what": "one feed process, gap tracking on, from a loopback WebSocket into Kafka, all on this machine",
            "load_of_the_machine_before": load,
            "at_1000_per_s": steady(settings, Path(folder), 1_000.0, asked.seconds),
            "full_speed": full_speed(settings, Path(folder), asked.messages),
        }
    print(write("feed", result).read_text())


if __name__ == "__main__":
    main()
