"""One writer per table at a time: advisory locks in the dataset's database, held by a session and gone with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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
        for name in sorted(qualified):
            row = connection.execute("select pg_try_advisory_lock(%s)", (lock_key(settings.dataset, name),)).fetchone()
            if not (row and row[0]):
                raise BusyError(f"{name} of dataset {settings.dataset} is being written by another process; try later")
        yield
        # a session that died meanwhile has lost its locks, and what was written may have met another writer's work
        connection.execute("select 1")
