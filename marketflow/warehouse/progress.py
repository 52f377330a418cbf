"""ops.stream_progress and the marks of bronze: what the stream's queries say about themselves.

The stream hands events to a queue and goes on; one thread writes them, and tries again while PostgreSQL is away.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Any

import psycopg

from marketflow.contracts.ops import STREAM_PROGRESS
from marketflow.settings import Settings
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect

KEPT_DAYS = 7
_PRUNE_EVERY_S = 3600.0
# eight hours of six queries at their usual triggers
_CAPACITY = 10_000
_RETRY_S = 1.0

_NAMES = STREAM_PROGRESS.column_names
_WRITE = (
    f"insert into ops.stream_progress ({', '.join(_NAMES)}) values ({', '.join(['%s'] * len(_NAMES))}) "  # noqa: S608 - the contract's own names
    f"on conflict ({', '.join(STREAM_PROGRESS.key)}) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in _NAMES if name not in STREAM_PROGRESS.key)
)


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One row of ops.stream_progress, fields in the contract's order. Batch −1 is before the query's first."""

    query: str
    run_id: str
    batch_id: int
    event: str
    at: datetime
    input_rows: int | None = None
    input_rows_per_s: float | None = None
    processed_rows_per_s: float | None = None
    duration_ms: int | None = None
    end_offsets: str | None = None
    latest_offsets: str | None = None
    error: str | None = None


def write(
    connection: psycopg.Connection[tuple[Any, ...]], events: list[ProgressEvent], marks: dict[str, datetime]
) -> None:
    """Write events and marks (table → complete_through); the same event again replaces itself."""
    with connection.cursor() as cursor:
        cursor.executemany(_WRITE, [astuple(event) for event in events])
    for table_name, complete_through in marks.items():
        freshness.mark(connection, table_name, complete_through)


def prune(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    """Delete events older than `KEPT_DAYS`; returns how many. How far each query has read is kept, however old."""
    done = connection.execute(
        "delete from ops.stream_progress where at < now() - make_interval(days => %s) and (query, at) not in ("
        "select query, max(at) from ops.stream_progress where end_offsets is not null group by query)",
        [KEPT_DAYS],
    )
    return done.rowcount


class ProgressWriter:
    """A bounded queue in front of one writing thread. When it is full the oldest events go, counted and told."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._events: deque[ProgressEvent] = deque()
        self._marks: dict[str, datetime] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._dropped = 0
        self._next_prune = 0.0
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="progress-writer", daemon=True)

    def start(self) -> None:
        """Begin writing."""
        self._thread.start()

    def put(self, event: ProgressEvent) -> None:
        """Hand over one event; never waits."""
        with self._lock:
            if len(self._events) >= _CAPACITY:
                self._events.popleft()
                self._dropped += 1
            self._events.append(event)
        self._wake.set()

    def mark(self, table_name: str, complete_through: datetime) -> None:
        """Hand over a bronze table's mark; never waits."""
        with self._lock:
            self._marks[table_name] = max(complete_through, self._marks.get(table_name, complete_through))
        self._wake.set()

    def close(self, timeout_s: float) -> bool:
        """Write what is queued and end; False where that took longer than `timeout_s`."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not (self._closing.is_set() and not self._pending()):
                self._wake.wait()
                self._wake.clear()
                self._drain()
        except Exception as error:  # handed to the main thread, which ends the stream with it
            self.failure = error

    def _pending(self) -> bool:
        return bool(self._events or self._marks)

    def _drain(self) -> None:
        """Write everything queued, trying until it is written."""
        while self._pending():
            with self._lock:
                events, marks = list(self._events), dict(self._marks)
            try:
                with connect(self._settings) as connection:
                    write(connection, events, marks)
                    if time.monotonic() >= self._next_prune:
                        prune(connection)
            except psycopg.OperationalError:
                time.sleep(_RETRY_S)
                continue
            if time.monotonic() >= self._next_prune:
                self._next_prune = time.monotonic() + _PRUNE_EVERY_S
            self._forget(events, marks)

    def _forget(self, events: list[ProgressEvent], marks: dict[str, datetime]) -> None:
        with self._lock:
            # those that were dropped while these were being written are at the front
            written = set(map(id, events))
            while self._events and id(self._events[0]) in written:
                self._events.popleft()
            self._marks = {name: at for name, at in self._marks.items() if marks.get(name) != at}
            dropped, self._dropped = self._dropped, 0
        if dropped:
            print(
                f"stream: {dropped} progress events were dropped while PostgreSQL was away", file=sys.stderr, flush=True
            )
