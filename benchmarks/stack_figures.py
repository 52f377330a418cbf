"""What a running stack takes and how late its numbers are: `make figures` beside a stack that is up.

Three measurements, each written to benchmarks/results/ with the machine it was made on:

    start   `marketflow down`, `marketflow up`: seconds to the first live rows in PostgreSQL, as a client sees them
    watch   how late movers, bronze and bars are, and the memory of every process (PSS), for some minutes
    idle    processor time of every service while the simulated exchange is stopped, for some minutes

Latencies are taken from outside: PostgreSQL is asked again and again what it shows, Kafka and the lake afterwards what
had arrived when. The k-th trade received is in its bar when the trade counts of the bars add up to k.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
from confluent_kafka import Consumer, TopicPartition

from benchmarks.results_file import write
from marketflow import settings as configuration
from marketflow.contracts.topics import TICKER, TRADES
from marketflow.errors import MarketflowError
from marketflow.lake import readers
from marketflow.services import desired
from marketflow.settings import Settings
from marketflow.stack.backend import backend
from marketflow.warehouse.connection import connect

CLOCK_TICK_S = 0.25
MEMORY_EVERY_S = 10.0


def say(text: str) -> None:
    """One line with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", flush=True)


def quantiles(seconds: Sequence[float]) -> dict[str, float | int]:
    """Count, median, p95 and the largest."""
    ordered = sorted(seconds)
    if not ordered:
        return {"count": 0}
    at = {"p50_s": 0.5, "p95_s": 0.95}
    found = {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * part))], 2) for name, part in at.items()}
    return {"count": len(ordered), **found, "max_s": round(ordered[-1], 2)}


def service_trees(settings: Settings) -> dict[str, list[psutil.Process]]:
    """Each service's processes that live now; `supervisord` is what belongs to none of them."""
    supervisor = backend(settings)
    root = psutil.Process(int(supervisor.client.pid()))
    trees = {}
    known = {root.pid}
    for name, status in supervisor.status().items():
        if status.pid is None:
            continue
        try:
            # from the wrapper on, which takes in and collects what the service leaves behind
            process = next(one for one in _lineage(psutil.Process(status.pid)) if one.ppid() == root.pid)
            trees[name] = [process, *process.children(recursive=True)]
        except (psutil.NoSuchProcess, StopIteration):
            continue
        known.update(one.pid for one in trees[name])
    trees["supervisord"] = [root, *(one for one in root.children(recursive=True) if one.pid not in known)]
    return trees


def _lineage(process: psutil.Process) -> Iterator[psutil.Process]:
    """A process, its parent, and so on."""
    found: psutil.Process | None = process
    while found is not None:
        yield found
        found = found.parent()


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds of a process and of its ended children, by then."""

    own: float
    children: float
    parent: int


def cpu_times(processes: Sequence[psutil.Process]) -> dict[int, Spent]:
    """What each process that lives has spent, by its id."""
    found = {}
    for process in processes:
        try:
            times = process.cpu_times()
            spent = Spent(times.user + times.system, times.children_user + times.children_system, process.ppid())
        except psutil.NoSuchProcess:
            continue
        found[process.pid] = spent
    return found


def cpu_between(before: Mapping[int, Spent], after: Mapping[int, Spent]) -> float:
    """Processor seconds between two looks at a tree.

    What a process that ended had spent before the first look comes back in its parent's account of ended children,
    unless the parent ignores its children's ends, as Spark's daemon of Python workers does: then it is in none.
    """
    nothing = Spent(0.0, 0.0, 0)
    total = sum(
        now.own + now.children - before.get(pid, nothing).own - before.get(pid, nothing).children
        for pid, now in after.items()
    )
    for pid in before.keys() - after.keys():
        gone = before[pid]
        parent = gone.parent
        collected = after[parent].children - before[parent].children if parent in after and parent in before else 0.0
        total -= min(collected, gone.own + gone.children)
    return total


def memory_mib(processes: Sequence[psutil.Process]) -> float:
    """Proportional set size: shared pages count once."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total / 1024**2


def start(settings: Settings) -> None:
    """Stop and start the stack, and see when the first rows of this start are there."""
    program = str(Path(sys.executable).parent / "marketflow")
    subprocess.run([program, "down"], check=True)
    began, moment = time.monotonic(), datetime.now(UTC)
    seen: list[float] = []

    def look() -> None:
        while not seen:
            try:
                with connect(settings, "marketflow_reader") as connection:
                    row = connection.execute("select max(polled_at) from live.asset_observation").fetchone()
                if row and row[0] and row[0] >= moment:
                    seen.append(time.monotonic() - began)
            except (psycopg.Error, MarketflowError):
                pass  # it does not answer yet, which is what is waited for; a look that never ends is an error below
            time.sleep(CLOCK_TICK_S)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    done = subprocess.run([program, "up"], capture_output=True, text=True)
    if done.returncode != 0:
        raise MarketflowError(f"marketflow up failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    whole = time.monotonic() - began
    looking.join(30)
    if not seen:
        raise MarketflowError("marketflow up has ended and no client sees a live row of this start")
    steps = [line for line in done.stdout.splitlines() if line.startswith("[")]
    result = {"first_live_rows_s": round(seen[0], 1), "everything_runs_s": round(whole, 1), "steps": steps}
    say(f"{result['first_live_rows_s']} s to the first live rows, {result['everything_runs_s']} s in all")
    say(f"wrote {write('stack-start', result)}")


class Watch:
    """What PostgreSQL shows, looked at again and again."""

    def __init__(self, settings: Settings, since: datetime) -> None:
        self.settings, self.since = settings, since
        self.snapshots: dict[datetime, datetime] = {}
        self.bars: list[tuple[datetime, int]] = []
        # final feature rows by market, anew whenever publication has moved
        self.features: list[tuple[datetime, dict[tuple[str, str], int]]] = []
        self._published: Any = None
        self.ended = since
        self.peak_mib = 0.0
        self.at_peak: dict[str, float] = {}

    def look(self, connection: Any) -> None:
        """One look at movers and bars."""
        (newest,) = connection.execute("select max(snapshot_ts) from live.top_movers").fetchone()
        now = datetime.now(UTC)
        if newest is not None and newest >= self.since:
            self.snapshots.setdefault(newest, now)
        (trades,) = connection.execute(
            "select coalesce(sum(trade_count), 0) from gold.bars where interval = '1m' and open_ts >= %s", (self.since,)
        ).fetchone()
        if not self.bars or self.bars[-1][1] != trades:
            self.bars.append((datetime.now(UTC), int(trades)))
        published = connection.execute(
            "select last_snapshot_id from ops.publish_audit where table_name = 'gold.trade_features'"
        ).fetchone()
        if published != self._published:
            self._published = published
            rows = connection.execute(
                "select venue, product_id, count(*) from gold.trade_features where is_final and event_ts >= %s "
                "group by venue, product_id",
                (self.since,),
            ).fetchall()
            self.features.append((datetime.now(UTC), {(venue, product): count for venue, product, count in rows}))

    def weigh(self) -> None:
        """The memory of all processes now."""
        by_service = {name: memory_mib(tree) for name, tree in service_trees(self.settings).items()}
        total = sum(by_service.values())
        if total > self.peak_mib:
            self.peak_mib, self.at_peak = total, {name: round(mib) for name, mib in by_service.items()}

    def run(self, minutes: float) -> None:
        """Look for so many minutes."""
        ends, weigh_at = time.monotonic() + minutes * 60, 0.0
        with connect(self.settings, "marketflow_reader", autocommit=True) as connection:
            while time.monotonic() < ends:
                self.look(connection)
                if time.monotonic() >= weigh_at:
                    self.weigh()
                    weigh_at = time.monotonic() + MEMORY_EVERY_S
                time.sleep(CLOCK_TICK_S)
        self.ended = datetime.now(UTC)


def movers_latency(settings: Settings, watch: Watch) -> dict[str, Any]:
    """From a poll's first request to its ranking in PostgreSQL."""
    with connect(settings, "marketflow_reader") as connection:
        polls = [
            row[0]
            for row in connection.execute(
                "select distinct poll_started_at from live.asset_observation where poll_started_at >= %s",
                (watch.since,),
            )
        ]
    seconds = [(seen - poll).total_seconds() for poll, seen in watch.snapshots.items() if poll in set(polls)]
    return {"polls": len(polls), "ranked": quantiles(seconds)}


def received(
    settings: Settings, topic: str, since: datetime, *, channel: str | None = None
) -> dict[tuple[int, int], datetime]:
    """(partition, offset) to received_at of what Kafka has since then; of one channel alone, where it is named."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": f"figures-{os.getpid()}",
            "enable.auto.commit": False,
        }
    )
    found: dict[tuple[int, int], datetime] = {}
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        asked = [TopicPartition(topic, number, int(since.timestamp() * 1000)) for number in partitions]
        starts = [one for one in consumer.offsets_for_times(asked, 10) if one.offset >= 0]
        for one in starts:
            _, end = consumer.get_watermark_offsets(one, 10)
            consumer.assign([one])
            while one.offset < end:
                message = consumer.poll(30)
                if message is None or message.error():
                    raise MarketflowError(f"{topic}: Kafka gave no message before offset {end}: {message}")
                headers = dict(message.headers() or [])
                if channel is None or headers["channel"] == channel.encode():
                    at = int(headers["received_at"]) / 1e6
                    found[one.partition, message.offset()] = datetime.fromtimestamp(at, UTC)
                if message.offset() >= end - 1:
                    break
    finally:
        consumer.close()
    return found


def bronze_latency(settings: Settings, topic: str, query: str, since: datetime) -> dict[str, Any]:
    """From receipt of a message to the end of the streaming batch that committed it."""
    with connect(settings, "marketflow_reader") as connection:
        rows = connection.execute(
            "select at + duration_ms * interval '1 millisecond', end_offsets from ops.stream_progress "
            "where query = %s and event = 'progress' and input_rows > 0 and at >= %s order by at",
            (query, since - timedelta(minutes=10)),
        ).fetchall()
    ends: defaultdict[int, list[tuple[int, datetime]]] = defaultdict(list)
    for committed, offsets in rows:
        for partitions in json.loads(offsets).values():
            for partition, end in partitions.items():
                ends[int(partition)].append((end, committed))
    seconds = []
    for (partition, offset), at in received(settings, topic, since).items():
        batches = ends[partition]
        found = bisect_right([end for end, _ in batches], offset)
        if found < len(batches) and at >= since:
            seconds.append((batches[found][1] - at).total_seconds())
    return quantiles(seconds)


def bars_latency(settings: Settings, watch: Watch) -> dict[str, Any]:
    """From receipt of a trade to the moment when the bars in PostgreSQL count it."""
    with readers.duckdb(settings) as lake:
        rows = lake.execute(
            "select received_at from silver.trades where event_ts >= ? order by received_at", [watch.since]
        ).fetchall()
    times = [row[0] for row in rows]
    seconds, counted = [], watch.bars[0][1]
    for seen, trades in watch.bars[1:]:
        seconds += [(seen - at).total_seconds() for at in times[counted:trades]]
        counted = max(counted, trades)
    # in Kafka, and in no bar when the watch ended: how late they are is not known, only that it is this or more
    newest_shown = times[counted - 1] if counted else watch.since
    all_trades = received(settings, TRADES.full_name(settings.topic_prefix), watch.since, channel="matches")
    waiting = [(watch.ended - at).total_seconds() for at in all_trades.values() if newest_shown < at < watch.ended]
    late = {"not_shown_yet": len(waiting), "oldest_not_shown_s": round(max(waiting, default=0.0), 2)}
    return {**quantiles(seconds), "publications": len(watch.bars) - 1, **late}


def features_latency(settings: Settings, watch: Watch) -> dict[str, Any]:
    """From receipt of a trade to its final feature row in PostgreSQL: a market's k-th trade is the k-th final row."""
    with readers.duckdb(settings) as lake:
        rows = lake.execute(
            "select venue, product_id, received_at from silver.trades where event_ts >= ? order by trade_id",
            [watch.since],
        ).fetchall()
    received_at: defaultdict[tuple[str, str], list[datetime]] = defaultdict(list)
    for venue, product, at in rows:
        received_at[venue, product].append(at)
    seconds: list[float] = []
    counted: defaultdict[tuple[str, str], int] = defaultdict(int)
    for seen, counts in watch.features:
        for market, count in counts.items():
            seconds += [(seen - at).total_seconds() for at in received_at[market][counted[market] : count]]
            counted[market] = max(counted[market], count)
    waiting = [
        (watch.ended - at).total_seconds()
        for market, times in received_at.items()
        for at in times[counted[market] :]
        if at < watch.ended
    ]
    late = {"not_shown_yet": len(waiting), "oldest_not_shown_s": round(max(waiting, default=0.0), 2)}
    return {**quantiles(seconds), "publications": len(watch.features), **late}


def watch(settings: Settings, minutes: float) -> None:
    """Latencies and memory."""
    since = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    say(f"watching for {minutes:g} minutes")
    seen = Watch(settings, since)
    seen.run(minutes)
    result = {
        "minutes": minutes,
        "poll_to_movers": movers_latency(settings, seen),
        "trade_to_bronze": bronze_latency(
            settings, TRADES.full_name(settings.topic_prefix), f"bronze_{TRADES.bronze}", since
        ),
        "quote_to_bronze": bronze_latency(
            settings, TICKER.full_name(settings.topic_prefix), f"bronze_{TICKER.bronze}", since
        ),
        "trade_to_bar": bars_latency(settings, seen),
        "trade_to_final_features": features_latency(settings, seen),
        "peak_memory_mib": round(seen.peak_mib),
        "memory_mib_at_peak": dict(sorted(seen.at_peak.items(), key=lambda pair: -pair[1])),
    }
    print(json.dumps(result, indent=1))
    say(f"wrote {write('stack-latency', result)}")


def idle(settings: Settings, minutes: float) -> None:
    """Processor time with the exchange stopped."""
    supervisor = backend(settings)
    if "simulator" not in supervisor.definitions:
        raise MarketflowError(f"dataset {settings.dataset} has no simulated exchange to stop")
    with connect(settings) as connection:
        asked = desired.read_desired(connection).get("simulator")
        if asked is not None and asked.desired == "stopped":
            raise MarketflowError(f"{asked.set_by} has stopped the simulator; start it again first")
        desired.set_desired(connection, "simulator", "stopped", "benchmark")
    try:
        supervisor.stop("simulator")
        time.sleep(60)  # what was under way comes to its end
        say(f"the exchange is stopped; measuring for {minutes:g} minutes")
        before = {name: cpu_times(tree) for name, tree in service_trees(settings).items()}
        began, load = time.monotonic(), psutil.cpu_times()
        time.sleep(minutes * 60)
        seconds = time.monotonic() - began
        after = {name: cpu_times(tree) for name, tree in service_trees(settings).items()}
        busy = sum(psutil.cpu_times()[:3]) - sum(load[:3])
    finally:
        with connect(settings) as connection:
            desired.set_desired(connection, "simulator", "running", desired.CONFIGURATION)
        supervisor.start("simulator")
    share = {name: round(100 * cpu_between(before.get(name, {}), after[name]) / seconds, 1) for name in after}
    result = {
        "minutes": minutes,
        "percent_of_one_core": round(sum(share.values()), 1),
        "by_service": dict(sorted(share.items(), key=lambda pair: -pair[1])),
        "whole_machine_percent_of_one_core": round(100 * busy / seconds, 1),
    }
    print(json.dumps(result, indent=1))
    say(f"wrote {write('stack-idle', result)}")


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["start", "watch", "idle"], help="default: all three, in this order")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long watch looks (default 15)")
    parser.add_argument("--idle-minutes", type=float, default=10.0, help="how long idle measures (default 10)")
    asked = parser.parse_args()
    settings = configuration.load()
    steps: dict[str, Callable[[], None]] = {
        "start": lambda: start(settings),
        "watch": lambda: watch(settings, asked.minutes),
        "idle": lambda: idle(settings, asked.idle_minutes),
    }
    for what in asked.what:
        if what not in steps:
            parser.error(f"{what} is none of {', '.join(steps)}")
        steps[what]()


if __name__ == "__main__":
    main()
