"""Frames on their way from a feed's reader to its publisher, bounded in number and in bytes."""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from marketflow.ingest.gaps import Cause

# The queue is also bounded in bytes, or 120,000 large frames would be the machine's memory.
MAX_QUEUE_BYTES = 256 * 1024**2


class Frame(msgspec.Struct, gc=False):
    """One frame as received."""

    connection_id: bytes
    received_us: int
    value: bytes


class Ended(msgspec.Struct):
    """A connection ended here in the order of frames."""

    cause: Cause


class FrameQueue:
    """Frames in order between reader and publisher. `full` is for the reader to look at before it reads on."""

    def __init__(self, max_messages: int) -> None:
        self._max_messages = max_messages
        self._items: deque[Frame | Ended] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def __len__(self) -> int:
        """Frames waiting."""
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the reader must stop."""
        return len(self._items) >= self._max_messages or self._bytes >= MAX_QUEUE_BYTES

    def put(self, item: Frame | Ended) -> None:
        """Add one; the reader asks `full` first."""
        self._items.append(item)
        if isinstance(item, Frame):
            self._bytes += len(item.value)
        self._filled.set()
        self._drained.clear()

    async def first(self) -> Frame | Ended:
        """The oldest item, still in the queue; waits for one."""
        while not self._items:
            self._filled.clear()
            self._drained.set()
            await self._filled.wait()
        return self._items[0]

    def pop(self) -> None:
        """Remove the oldest item: it is Kafka's client's now."""
        item = self._items.popleft()
        if isinstance(item, Frame):
            self._bytes -= len(item.value)
        if not self._items:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until the queue is empty."""
        await self._drained.wait()
