"""What is remembered of alerts: ops.alert, and a file in the home that bridges the time in which PostgreSQL is away.

The file holds every alert that is open, and those that ended while PostgreSQL was away, until PostgreSQL has them. So
an alert that was sent before the outage is not sent again in it, and one that began in it ends after it. One process
at a time holds the file's lock; between machines, PostgreSQL's.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg.rows import dict_row

from marketflow.alerts.message import Severity
from marketflow.contracts.ops import ALERT
from marketflow.errors import MarketflowError
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import lock_key

_NAMES = ALERT.column_names
_TIMES = ("opened_at", "last_seen_at", "sent_at", "closed_at", "recovery_sent_at")
_WRITE = (
    f"insert into ops.alert ({', '.join(_NAMES)}) values ({', '.join(f'%({name})s' for name in _NAMES)}) "  # noqa: S608 - the contract's own names
    f"on conflict ({', '.join(ALERT.key)}) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in _NAMES if name not in ALERT.key)
)
_OPEN = f"select {', '.join(_NAMES)} from ops.alert where closed_at is null"  # noqa: S608 - as above

_NEWEST = (
    f"select {', '.join(_NAMES)} from ops.alert "  # noqa: S608 - as above
    "order by closed_at desc nulls first, opened_at desc limit %s"
)
_UNHEARD = (
    f"select {', '.join(_NAMES)} from ops.alert told "  # noqa: S608 - as above
    "where closed_at > %s and sent_at is not null and recovery_sent_at is null and not exists ("
    "select from ops.alert newer where newer.alert_key = told.alert_key and newer.opened_at > told.opened_at"
    ") order by closed_at"
)


@dataclass(frozen=True, slots=True)
class Episode:
    """One row of ops.alert, fields in the contract's order."""

    alert_key: str
    opened_at: datetime
    severity: Severity
    title: str
    body: str
    last_seen_at: datetime
    times_seen: int
    sent_at: datetime | None
    failed_sends: int
    last_error: str | None
    closed_at: datetime | None
    recovery_sent_at: datetime | None


class Book:
    """The open alerts while the lock is held. `database_error` says why PostgreSQL was not asked; None if it was."""

    def __init__(self, path: Path, connection: psycopg.Connection[Any] | None, database_error: str | None) -> None:
        """`path` is the bridging file; `connection` commits by itself."""
        self._path, self._connection, self.database_error = path, connection, database_error
        stored = _read(path)
        # what PostgreSQL has not seen yet, by (key, opened_at)
        self._unsaved = {(one.alert_key, one.opened_at): one for one, saved in stored if not saved}
        self._open = {one.alert_key: one for one, _ in stored if one.closed_at is None}
        if connection is not None:
            self._hand_over(connection)

    def _hand_over(self, connection: psycopg.Connection[Any]) -> None:
        for episode in self._unsaved.values():
            connection.execute(_WRITE, asdict(episode))
        self._unsaved = {}
        with connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_OPEN).fetchall()
        self._open = {row["alert_key"]: Episode(**row) for row in rows}
        self._write_file()

    def open(self, key: str) -> Episode | None:
        """The open alert of this key."""
        return self._open.get(key)

    def all_open(self) -> list[Episode]:
        """Every open alert, oldest first."""
        return sorted(self._open.values(), key=lambda one: one.opened_at)

    def unheard(self, since: datetime) -> list[Episode]:
        """What ended after `since` and was told, while the word of its end was not taken; the oldest end first.

        Not while PostgreSQL is away, and nothing that came again since.
        """
        if self._connection is None:
            return []
        with self._connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_UNHEARD, (since,)).fetchall()
        return [Episode(**row) for row in rows]

    def newest(self, limit: int) -> list[Episode]:
        """Open alerts and, where PostgreSQL answers, those that are over; the newest first within each."""
        if self._connection is None:
            return self.all_open()[::-1][:limit]
        with self._connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(_NEWEST, (limit,)).fetchall()
        return [Episode(**row) for row in rows]

    def save(self, episode: Episode) -> None:
        """Keep it: in PostgreSQL, or in the file until PostgreSQL is there."""
        if episode.closed_at is None:
            self._open[episode.alert_key] = episode
        else:
            self._open.pop(episode.alert_key, None)
        self._unsaved[episode.alert_key, episode.opened_at] = episode
        self._write_file()
        if self._connection is None:
            return
        try:
            self._connection.execute(_WRITE, asdict(episode))
        except psycopg.OperationalError as error:
            self._connection, self.database_error = None, str(error).strip()
            return
        del self._unsaved[episode.alert_key, episode.opened_at]
        self._write_file()

    def _write_file(self) -> None:
        listed = [(one, False) for one in self._unsaved.values()]
        listed += [(one, True) for one in self._open.values() if (one.alert_key, one.opened_at) not in self._unsaved]
        text = json.dumps([{**asdict(one), "in_postgres": saved} for one, saved in listed], default=_iso, indent=1)
        beside = self._path.with_suffix(".new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        beside.replace(self._path)


def file_of(settings: Settings) -> Path:
    """The bridging file of this dataset."""
    return settings.home / "alerts" / f"{settings.dataset}.json"


@contextmanager
def book(settings: Settings) -> Iterator[Book]:
    """Open alerts, with nobody else at them until the block ends."""
    path = file_of(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        connection, why = _connected(settings)
        try:
            try:
                found = Book(path, connection, why)
            except psycopg.Error as error:  # it went away, or the table is not there yet
                found = Book(path, None, str(error).strip())
            yield found
        finally:
            if connection is not None:
                connection.close()


def _connected(settings: Settings) -> tuple[psycopg.Connection[Any] | None, str | None]:
    """A connection that holds the alerts' lock, or why there is none."""
    try:
        connection = connect(settings, autocommit=True)
    except (psycopg.OperationalError, MarketflowError) as error:
        return None, str(error).strip()
    try:
        connection.execute("set lock_timeout = '30s'")
        connection.execute("select pg_advisory_lock(%s)", (lock_key(settings.dataset, "alerts"),))
    except psycopg.Error as error:
        connection.close()
        return None, str(error).strip()
    return connection, None


def _read(path: Path) -> list[tuple[Episode, bool]]:
    if not path.exists():
        return []
    found = []
    for row in json.loads(path.read_text()):
        saved = bool(row.pop("in_postgres"))
        times = {name: datetime.fromisoformat(row[name]) if row[name] else None for name in _TIMES}
        found.append((replace(Episode(**row), **cast(Any, times)), saved))
    return found


def _iso(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()
