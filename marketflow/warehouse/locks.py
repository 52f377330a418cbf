"""One writer per table at a time: advisory locks in the dataset's database, held by a session and gone with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

from marketflow.errors import BusyError
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect


def lock_key(dataset: str, what: str) -> int:
    """A fixed signed 64-bit key of dataset and table (or checkpoint), the same in every process."""
    digest = hashlib.sha256(f"{dataset}|{what}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@contextmanager
def table_lock(settings: Settings, *qualified: str) -> Iterator[None]:
    """Hold the write locks of these tables, taken in name order; BusyError (exit 75) when one is taken."""
    with connect(settings, autocommit=True) as connection:
        try:
            _take(connection, settings.dataset, sorted(qualified))
            yield
        except BaseException:
            # what went wrong is the news; a session that is gone has given its locks back by itself
            if not connection.broken:
                with suppress(psycopg.OperationalError):
                    _give_back(connection)
            raise
        # fails where the session died meanwhile: its locks were lost, and another writer may have been at work
        _give_back(connection)


def _take(connection: psycopg.Connection[tuple[Any, ...]], dataset: str, names: list[str]) -> None:
    for name in names:
        row = connection.execute("select pg_try_advisory_lock(%s)", (lock_key(dataset, name),)).fetchone()
        if not (row and row[0]):
            raise BusyError(f"{name} of dataset {dataset} is being written by another process; try later")


def _give_back(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Before the connection is closed: the server ends a closed session a moment later, and the next writer is here."""
    connection.execute("select pg_advisory_unlock_all()")
