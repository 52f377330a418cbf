"""The stream's fence: at most one driver writes from a checkpoint, and a driver that is no longer the one is gone.

A session of its own holds the advisory lock of the checkpoint. The lock is free the moment that session ends, so

- the holder proves every second that the session lives, and ends itself within 5 s of the last proof;
- a new holder waits 15 s after taking the lock before it writes anything.

A holder whose session broke may take the lock again within its 5 s: whoever had it in between has written nothing.
So a restart of PostgreSQL that lasts a moment does not end the stream.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import psycopg
from psycopg import errors

from marketflow.settings import Settings
from marketflow.warehouse.locks import lock_key

CHECKPOINT = "checkpoint:stream"
WAIT_S = 15.0
LOST_AFTER_S = 4.5
_PROOF_EVERY_S = 1.0

Connection = psycopg.Connection[tuple[Any, ...]]


class Fence:
    """The lock of one dataset's stream, from `take` to `release`; between them this process dies with its session."""

    def __init__(self, settings: Settings, *, wait_s: float = WAIT_S) -> None:
        """`wait_s` after taking the lock is when `wait_until_safe` returns."""
        self._settings = settings
        self._wait_s = wait_s
        self._key = lock_key(settings.dataset, CHECKPOINT)
        self._connection: Connection | None = None
        self._proven_at = 0.0
        self._taken_at = 0.0
        self._released = threading.Event()
        self._writers: list[int] = []

    def take(self, stop: threading.Event) -> bool:
        """Wait for the lock, naming who holds it; False where `stop` was set first."""
        told = None
        while not stop.is_set():
            try:
                connection = self._connection or self._connect()
                self._connection = connection
                connection.execute("select pg_advisory_lock(%s)", (self._key,))
            except errors.LockNotAvailable:
                holder = self._holder(connection)
                if holder != told:
                    _say(f"waiting: the checkpoint of dataset {self._settings.dataset} is held by {holder}")
                    told = holder
            except psycopg.OperationalError as error:
                _say(f"waiting for PostgreSQL: {_first_line(error)}")
                self._connection = None
                stop.wait(1.0)
            else:
                self._taken_at = self._proven_at = _clock()
                return True
        return False

    def watch(self) -> None:
        """Start proving that the lock is held, and ending this process when it cannot be proven."""
        for target in (self._prove, self._end_when_lost):
            threading.Thread(target=target, name=f"fence-{target.__name__}", daemon=True).start()

    def also_end(self, process_id: int) -> None:
        """A process that writes on this one's behalf and may be outside its group: the driver's JVM."""
        self._writers.append(process_id)

    def wait_until_safe(self, stop: threading.Event) -> bool:
        """Until an earlier holder must be gone; False where `stop` was set first."""
        return not stop.wait(max(0.0, self._taken_at + self._wait_s - _clock()))

    def release(self) -> None:
        """Let the lock go: nothing is written any more."""
        self._released.set()
        if self._connection is not None:
            self._connection.close()

    def _connect(self) -> Connection:
        connection = psycopg.connect(
            self._settings.dsn(),
            autocommit=True,
            connect_timeout=2,
            application_name=f"marketflow stream, process {os.getpid()} on {socket.gethostname()}",
            tcp_user_timeout=3000,
            keepalives_idle=2,
            keepalives_interval=1,
            keepalives_count=2,
        )
        # short, so that a request to stop is noticed while another driver holds the lock
        connection.execute("set lock_timeout = '1s'")
        return connection

    def _holder(self, connection: Connection) -> str:
        row = connection.execute(
            "select activity.pid, activity.application_name, activity.backend_start from pg_locks as held "
            "join pg_stat_activity as activity on activity.pid = held.pid "
            "where held.locktype = 'advisory' and held.granted and held.objsubid = 1 "
            "and (held.classid::bigint << 32 | held.objid::bigint) = %s",
            (self._key,),
        ).fetchone()
        return f"backend {row[0]} ({row[1]}) since {row[2]:%Y-%m-%d %H:%M:%S}" if row else "a session that just ended"

    def _prove(self) -> None:
        while not self._released.wait(_PROOF_EVERY_S):
            asked_at = _clock()
            try:
                assert self._connection is not None
                self._connection.execute("select 1")
            except psycopg.OperationalError as error:
                if not self._released.is_set():
                    _say(f"the fence's session is gone: {_first_line(error)}")
                    self._take_again()
            else:
                self._proven_at = asked_at

    def _take_again(self) -> None:
        """Take the lock in a new session while there is time; the other thread ends the process when there is none."""
        while not self._released.is_set():
            asked_at = _clock()
            try:
                connection = self._connect()
                row = connection.execute("select pg_try_advisory_lock(%s)", (self._key,)).fetchone()
                if not (row and row[0]):
                    self._end(f"the checkpoint is now held by {self._holder(connection)}")
            except psycopg.OperationalError:
                self._released.wait(0.2)
            else:
                self._connection, self._proven_at = connection, asked_at
                _say("the fence's lock is held again, by a new session")
                return

    def _end_when_lost(self) -> None:
        while not self._released.wait(0.1):
            age_s = _clock() - self._proven_at
            if age_s > LOST_AFTER_S:
                self._end(f"its lock could not be proven for {age_s:.1f} s")

    def _end(self, why: str) -> None:
        _say(f"ending: {why}")
        for process_id in self._writers:
            try:
                os.kill(process_id, signal.SIGKILL)
            except ProcessLookupError:
                continue  # the writer is gone already, which is what is wanted
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _clock() -> float:
    """Seconds that also pass while the machine sleeps: a lock is lost asleep, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _say(line: str) -> None:
    print(f"stream: {line}", file=sys.stderr, flush=True)
