"""Writes to Postgres that may wait: in order, retried for as long as it takes, never in the feed's way."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg

from marketflow.ingest.logs import log

Connection = psycopg.Connection[tuple[Any, ...]]
Write = Callable[[Connection], object]

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# One connection serves this many writes before the queue is looked at again.
BATCH = 200


class Outbox:
    """Runs writes one after another on a thread of its own.

    A write must be idempotent: when the connection breaks while it commits, it runs again.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._writes: deque[Write] = deque()
        self._added = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        """Writes that are not yet in Postgres."""
        return len(self._writes)

    def add(self, write: Write) -> None:
        """Take one write; returns at once."""
        self._writes.append(write)
        self._empty.clear()
        self._added.set()

    async def run(self) -> None:
        """Write for ever; cancel it to end."""
        attempt = 0
        while True:
            await self._added.wait()
            try:
                await asyncio.to_thread(self._write_some)
            except psycopg.Error as error:
                delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
                attempt += 1
                log("postgres_away", waiting=len(self._writes), retry_in_s=round(delay, 2), error=str(error).strip())
                await asyncio.sleep(delay)
                continue
            attempt = 0
            if not self._writes:
                self._added.clear()
                self._empty.set()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until everything is written; False where it is not by then."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def _write_some(self) -> None:
        with self._connect() as connection:
            for _ in range(min(BATCH, len(self._writes))):
                self._writes[0](connection)
                connection.commit()
                self._writes.popleft()
