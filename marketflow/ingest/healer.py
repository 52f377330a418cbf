"""Fills holes in trade ids from a venue's REST history; what cannot be filled is said to be so.

A hole waits a short grace, since a late or reordered trade fills it by itself. Then its ids are paged for, every page
goes to Kafka, and what silver will find on it is closed in the ledger, page by page. What is left is tried again after
growing waits and given up in the end, or earlier where two tries found the venue's history without those very ids.
Why it is so: docs/decisions/0008-healing.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from marketflow.errors import HistoryError, VenueError
from marketflow.ingest.gaps import Gap
from marketflow.ingest.logs import log
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.rest import RestClient
from marketflow.venues import id_ranges
from marketflow.venues.history import History, Wanted, trades_on
from marketflow.venues.history_walk import PAGE_LIMIT, Walk
from marketflow.venues.id_ranges import Range
from marketflow.warehouse import ledger

GRACE_S = 1.0
TRIES = 5
# waits of 1, 3, 9 and 27 s between five tries
FIRST_WAIT_S = 1.0
WAIT_FACTOR = 3.0
# after the first failure without any since that helped: a dead venue must not hold a hole for longer
PATIENCE_S = 100.0
# a pause that a venue asks for is waited out up to this; beyond it the hole stays open for the next look of the Dag
LONGEST_PAUSE_S = 60.0
# ids of one piece of work, where a venue pages by id: a long outage must not keep a small hole waiting
PIECE = 20 * PAGE_LIMIT
CAPACITY = 10_000

Published = Callable[[str, list[int]], None]


@dataclass(slots=True, eq=False)
class Hole:
    """Missing ids of one product; `left` are ascending and disjoint. `due_s` is on the monotonic clock."""

    product_id: str
    left: list[Range]
    detected_at: datetime
    due_s: float
    before_us: int | None
    after_us: int | None
    tries: int = 0
    failures: int = 0
    failing_since_s: float | None = None
    # ids that the last try found left out between their neighbours
    absent: list[Range] = field(default_factory=list)

    @property
    def span(self) -> Range:
        """First and last id."""
        return self.left[0][0], self.left[-1][1]


class Healer:
    """One venue's holes. `add` and `filled` are for the event loop that `run` is in.

    `on_published` is told the product and those of its missing ids that are in Kafka now.
    """

    def __init__(
        self,
        history: History,
        client: RestClient,
        outbox: Outbox,
        on_published: Published | None = None,
        *,
        grace_s: float = GRACE_S,
        tries: int = TRIES,
        first_wait_s: float = FIRST_WAIT_S,
        capacity: int = CAPACITY,
    ) -> None:
        self._history = history
        self._client = client
        self._outbox = outbox
        self._on_published = on_published
        self._grace_s = grace_s
        self._tries = tries
        self._first_wait_s = first_wait_s
        self._capacity = capacity
        self._waiting: list[Hole] = []
        self._current: Hole | None = None
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stop = asyncio.Event()
        self.healed_trades = 0
        self.unrecoverable_trades = 0

    def __len__(self) -> int:
        """Holes that wait or are worked on."""
        return len(self._waiting) + (self._current is not None)

    def add(
        self,
        gap: Gap,
        before_us: int | None = None,
        after_us: int | None = None,
        *,
        detected_at: datetime | None = None,
    ) -> bool:
        """Take a hole that the ledger knows; returns at once.

        `before_us` and `after_us` are the times of the last trade before and the first after it, where known. False
        where the queue is full: the hole stays open in the ledger, and the Dag that looks at it takes it up.
        """
        ids = (gap.first_missing_id, gap.last_missing_id)
        for hole in self._waiting:
            if hole.product_id == gap.product_id and hole.tries == 0 and self._joins(hole, ids):
                _join(hole, [ids], before_us, after_us)
                return True
        step = PIECE if self._history.by_id else gap.missing
        pieces = [(first, min(first + step - 1, ids[1])) for first in range(ids[0], ids[1] + 1, step)]
        if len(self) + len(pieces) > self._capacity:
            log("heal_queue_full", venue=gap.venue, product_id=gap.product_id, missing=gap.missing)
            return False
        due_s, now = time.monotonic() + self._grace_s, datetime.now(UTC)
        self._waiting += [
            Hole(gap.product_id, [piece], detected_at or now, due_s, before_us, after_us) for piece in pieces
        ]
        self._idle.clear()
        self._changed.set()
        return True

    def _joins(self, hole: Hole, ids: Range) -> bool:
        """Whether a hole touches another, and both are one piece of work."""
        first, last = min(hole.span[0], ids[0]), max(hole.span[1], ids[1])
        touches = ids[0] <= hole.span[1] + 1 and hole.span[0] <= ids[1] + 1
        return touches and (not self._history.by_id or last - first < PIECE)

    def filled(self, product_id: str, trade_id: int) -> None:
        """A missing trade arrived by itself."""
        for hole in (*self._waiting, *(() if self._current is None else (self._current,))):
            if hole.product_id == product_id and id_ranges.contains(hole.left, trade_id):
                hole.left = id_ranges.without(hole.left, [(trade_id, trade_id)])
        self._waiting = [hole for hole in self._waiting if hole.left]
        self._changed.set()

    def stop(self) -> None:
        """End `run`; what is open stays open in the ledger."""
        self._stop.set()

    async def done(self) -> None:
        """Wait until no hole waits or is worked on."""
        await self._idle.wait()

    async def run(self) -> None:
        """Heal until stopped. PublishError where Kafka lost an answer for good."""
        work, stopping = asyncio.create_task(self._work()), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            work.cancel()
            await asyncio.wait((work, stopping))
        if not work.cancelled():
            work.result()

    async def _work(self) -> None:
        while True:
            hole = await self._next()
            self._current = hole
            try:
                await self._try(hole)
            finally:
                self._current = None

    async def _next(self) -> Hole:
        """The hole that is due first, with its neighbours that one page brings too."""
        while True:
            self._changed.clear()
            if not self._waiting:
                self._idle.set()
                await self._changed.wait()
                continue
            first = min(self._waiting, key=lambda hole: hole.due_s)
            wait_s = first.due_s - time.monotonic()
            if wait_s <= 0:
                return self._taken(first)
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _taken(self, first: Hole) -> Hole:
        self._waiting.remove(first)
        for other in sorted(self._waiting, key=lambda hole: hole.left):
            same = (other.product_id, other.tries) == (first.product_id, first.tries)
            together = max(first.span[1], other.span[1]) - min(first.span[0], other.span[0]) < PAGE_LIMIT
            if same and together and other.due_s <= time.monotonic():
                _join(first, other.left, other.before_us, other.after_us)
                first.detected_at = min(first.detected_at, other.detected_at)
                self._waiting.remove(other)
        return first

    # one try

    async def _try(self, hole: Hole) -> None:
        began, before, shown = datetime.now(UTC), id_ranges.count(hole.left), self._shown(hole)
        spans = _spans(hole.left) if self._history.by_id else [hole.span]
        for span in spans:
            self._tell(ledger.attempted, hole, span, began)
        why, pause_s, absent = "the pages end before the hole does", None, []
        try:
            for span in spans:
                walk = self._history.walk(self._wanted(hole, span))
                why = await self._walk(hole, walk) or why
                absent += walk.absent
        except VenueError as error:
            why, pause_s = str(error), error.retry_after_s
        if not hole.left:
            latency_s = (datetime.now(UTC) - hole.detected_at).total_seconds()
            log("healed", **shown, trades=before, tries=hole.tries + 1, latency_s=round(latency_s, 3))
            return
        self._after(hole, began, why, pause_s, absent, helped=id_ranges.count(hole.left) < before)

    def _wanted(self, hole: Hole, span: Range) -> Wanted:
        detected_us = round(hole.detected_at.timestamp() * 1_000_000)
        return Wanted(hole.product_id, *span, detected_us, hole.before_us, hole.after_us, hole.tries)

    async def _walk(self, hole: Hole, walk: Walk) -> str | None:
        """Page until nothing is missing or to ask; the first lie, or None."""
        lie = None
        while walk.call is not None and hole.left:
            answer = await self._client.page(walk.call.request, hole.product_id, weight=walk.call.weight)
            self._arrived(hole, trades_on(answer.headers, answer.value, hole.product_id))
            try:
                walk.read(answer.value, answer.older)
            except HistoryError as error:
                log("page_lies", venue=error.venue, product_id=error.product_id, why=error.detail, asked=error.request)
                lie = lie or str(error)
        return lie

    def _arrived(self, hole: Hole, ids: list[int]) -> None:
        """These ids are in Kafka: close those that are missing."""
        missing = [each for each in ids if id_ranges.contains(hole.left, each)]
        if not missing:
            return
        closed = id_ranges.of_ids(missing)
        hole.left = id_ranges.without(hole.left, closed)
        self.healed_trades += id_ranges.count(closed)
        for ids_closed in closed:
            self._tell(ledger.close_hole, hole, ids_closed, datetime.now(UTC))
        if self._on_published is not None:
            self._on_published(hole.product_id, missing)

    def _after(
        self, hole: Hole, began: datetime, why: str, pause_s: float | None, absent: list[Range], *, helped: bool
    ) -> None:
        """What becomes of the ids that a try did not bring."""
        for span in hole.left:
            self._tell(ledger.attempted, hole, span, began, detail=why)
        absent = id_ranges.within(absent, hole.left)
        self._give_up(hole, id_ranges.within(absent, hole.absent), f"left out by two answers: {why}")
        hole.absent = absent
        hole.tries += 1
        hole.failures = 0 if helped else hole.failures + 1
        now_s = time.monotonic()
        hole.failing_since_s = None if helped else hole.failing_since_s or now_s
        if not hole.left:
            return
        if pause_s is not None and pause_s > LONGEST_PAUSE_S:
            log("heal_put_off", **self._shown(hole), pause_s=round(pause_s), why=why)
            return
        wait_s = max(self._first_wait_s * WAIT_FACTOR ** max(0, hole.failures - 1), pause_s or 0.0)
        late = hole.failing_since_s is not None and now_s + wait_s - hole.failing_since_s > PATIENCE_S
        if hole.failures >= self._tries or late:
            self._give_up(hole, hole.left, f"{hole.tries} tries: {why}")
            return
        log("heal_failed", **self._shown(hole), tries=hole.tries, again_in_s=round(wait_s, 1), why=why)
        hole.due_s = now_s + wait_s
        self._waiting.append(hole)

    def _give_up(self, hole: Hole, ids: list[Range], detail: str) -> None:
        for span in ids:
            log("unrecoverable", **{**self._shown(hole), "first_id": span[0], "last_id": span[1]}, why=detail)
            self._tell(ledger.give_up, hole, span, datetime.now(UTC), detail=detail)
        self.unrecoverable_trades += id_ranges.count(ids)
        hole.left = id_ranges.without(hole.left, ids)

    def _tell(self, write: Callable[..., object], hole: Hole, ids: Range, at: datetime, **more: Any) -> None:
        told = {"venue": self._history.venue, "product_id": hole.product_id, "first_id": ids[0], "last_id": ids[1]}
        self._outbox.add(partial(write, **told, at=at, **more))

    def _shown(self, hole: Hole) -> dict[str, object]:
        first, last = hole.span
        return {"venue": self._history.venue, "product_id": hole.product_id, "first_id": first, "last_id": last}


def _join(hole: Hole, ids: list[Range], before_us: int | None, after_us: int | None) -> None:
    """More ids into a hole; where in time it may be grows with them."""
    hole.left = id_ranges.union([*hole.left, *ids])
    hole.before_us = None if hole.before_us is None or before_us is None else min(hole.before_us, before_us)
    hole.after_us = None if hole.after_us is None or after_us is None else max(hole.after_us, after_us)


def _spans(ranges: list[Range]) -> list[Range]:
    """Ranges joined where one page covers them."""
    spans: list[Range] = []
    for first, last in ranges:
        if spans and last - spans[-1][0] < PAGE_LIMIT:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans
