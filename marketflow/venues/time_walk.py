"""History of an interval of time: what to ask, what a page says, and when it lies. No network, no clock.

A walk is told the interval and where it stood before, if it did, and then, answer after answer, what came; its `call`
is what to ask next, None at the end. `looking` tells that the answer is only to find the place: nothing of it is kept.
An answer that cannot be true raises a HistoryError and leaves `call` as it was, so that it is asked again; a history
that leaves something out in two answers lacks it, which is noted, and the walk goes on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from marketflow.errors import HistoryError
from marketflow.venues.history_walk import Call, shown_holes
from marketflow.venues.id_ranges import Range, count
from marketflow.venues.validation import EPOCH, FIRST_EVENT_US

# a venue's times may run against its ids by this much; more is a lie
TOLERANCE_US = 1_000_000
SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """[start, end) of a canonical product, in µs. `now_us` is when it is asked for: the end is not after it."""

    product_id: str
    start_us: int
    end_us: int
    now_us: int


@dataclass(frozen=True, slots=True)
class Timed:
    """One trade of a page: id, time in µs, and what else the venue says of it. `us` is None where it is no time."""

    trade_id: int
    us: int | None
    content: tuple[Any, ...]


class TimeWalk(ABC):
    """See the module. `cursor` is where to go on after a kill; None while there is nothing to go on from.

    `reached_us` is the time that the pages have come to from one side; `notes` say what the history lacks.
    """

    call: Call | None
    upward: bool
    estimate: int | None = None

    def __init__(self, venue: str, span: Span, cursor: str | None) -> None:
        self.venue = venue
        self.span = span
        self.looking = False
        self.cursor = cursor
        self.reached_us: int | None = None
        self.notes: list[str] = []
        self.items = 0
        self._doubted: tuple[str, str] | None = None

    @abstractmethod
    def read(self, value: bytes) -> None:
        """Take what answered `call`.

        Raises:
            HistoryError: it cannot be true, or leaves something out; `call` is to be asked again.
        """

    @property
    def done_part(self) -> float:
        """How much of the interval's time lies behind, 0 to 1."""
        span = self.span
        if self.reached_us is None:
            return 0.0
        here = min(max(self.reached_us, span.start_us), span.end_us)
        behind = here - span.start_us if self.upward else span.end_us - here
        return behind / (span.end_us - span.start_us)

    def _lie(self, detail: str) -> HistoryError:
        assert self.call is not None
        return HistoryError(self.venue, self.span.product_id, self.call.request, detail)

    def _twice(self, detail: str, *, note: bool = True) -> None:
        """Doubt an answer the first time that it says so; take it as the venue's word the second time, and note it."""
        assert self.call is not None
        doubt = (self.call.request, detail)
        if self._doubted != doubt:
            self._doubted = doubt
            raise self._lie(detail)
        if note:
            self.notes.append(detail)

    def _call_taken(self) -> Call:
        assert self.call is not None, "the walk had ended"
        return self.call


def in_order(trades: Sequence[Timed], limit: int, lie: Callable[[str], HistoryError]) -> list[Timed]:
    """A page's trades by ascending id, each once; a lie where there are too many, or their order or times go back."""
    if len(trades) > limit:
        raise lie(f"{len(trades)} trades came, {limit} were asked for")
    ascending: list[Timed] = []
    for one in sorted(trades, key=lambda each: each.trade_id):
        if ascending and one.trade_id == ascending[-1].trade_id:
            if one != ascending[-1]:
                raise lie(f"trade {one.trade_id} came twice, each time with other content")
            continue
        ascending.append(one)
    told = [one for one in ascending if one.us is not None]
    for older, newer in pairwise(told):
        assert older.us is not None
        assert newer.us is not None
        if newer.us < older.us - TOLERANCE_US:
            raise lie(f"trade {newer.trade_id} is older than trade {older.trade_id}: the times go back")
    if trades and not told:
        raise lie("no trade of the page has a time that can be")
    return ascending


def left_out(ids: Sequence[int], edge: Range | None = None) -> list[Range]:
    """Holes within ascending ids, and the one at an edge where there is one."""
    holes = [(low + 1, high - 1) for low, high in pairwise(ids) if high > low + 1]
    return holes if edge is None or edge[0] > edge[1] else sorted([*holes, edge])


def shown_left_out(holes: Sequence[Range]) -> str:
    """For a sentence."""
    return f"the history leaves out {shown_holes(holes)} ({count(holes):,} trades)"


def time_us(text: object) -> int | None:
    """A text with a zone in µs; None where it is none, or before anything was traded: some venues send the year one."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    since = at - EPOCH
    us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return us if us >= FIRST_EVENT_US else None
