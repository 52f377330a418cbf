"""One try at a hole by REST: what to ask, what a page says, and when it lies. No network, no clock.

A walk is told the hole and then, page after page, what came; its `call` is what to ask next, None at the end. A page
that lies raises a HistoryError after `call` was set to what can still be asked, so the one who walks may go on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec

from marketflow.errors import HistoryError
from marketflow.venues.id_ranges import Range, union, within
from marketflow.venues.validation import DECODE_ERRORS, shown, shown_error

PAGE_LIMIT = 1_000
# where ids are looked for by walking down from the newest trade: a heal is minutes old, not days
MAX_PAGES = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """Ids `first_id` to `last_id` of a canonical product, and where in time they may be.

    `before_us` and `after_us` are the times of the last trade before and the first after the hole, None where nobody
    knows; `tries` are those made before, since a guessed time is looked around the wider the more there were.
    """

    product_id: str
    first_id: int
    last_id: int
    detected_us: int
    before_us: int | None = None
    after_us: int | None = None
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One request: canonical path and sorted query, its weight in the venue's own units.

    `cursor` and `window` are what was asked, for the page to be judged by: an id, or seconds first to last.
    """

    request: str
    limit: int
    weight: int = 1
    cursor: int | None = None
    window: Range | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One trade of a page: its id and what the venue says of it."""

    trade_id: int
    content: tuple[Any, ...]


class Walk(ABC):
    """See the module. `absent` are ids of the hole that a page leaves out although it has their neighbours."""

    call: Call | None

    def __init__(self, venue: str, wanted: Wanted) -> None:
        self.venue = venue
        self.wanted = wanted
        self.absent: list[Range] = []
        self._pages = 0
        self._contents: dict[int, tuple[Any, ...]] = {}

    @abstractmethod
    def read(self, value: bytes, older: str | None = None) -> None:
        """Take the page that answered `call`; `older` is the venue's own cursor of the next page, where it gave one.

        Raises:
            HistoryError: the page lies, or the venue's history does not reach the hole.
        """

    def _taken(self) -> Call:
        """The call that a page answers; after it there is nothing to ask until somebody sets it."""
        call = self.call
        assert call is not None, "the walk had ended"
        self.call = None
        self._pages += 1
        return call

    def _lie(self, call: Call, detail: str) -> HistoryError:
        return HistoryError(self.venue, self.wanted.product_id, call.request, detail)

    def _leaves_out(self, first_id: int, last_id: int) -> None:
        here = (self.wanted.first_id, self.wanted.last_id)
        self.absent = union([*self.absent, *within([(first_id, last_id)], [here])])

    def _ordered(self, call: Call, listed: Sequence[Listed], *, newest_first: bool) -> list[int]:
        """Ids in the page's order, each once."""
        if len(listed) > call.limit:
            raise self._lie(call, f"{len(listed)} trades came, {call.limit} were asked for")
        ids: list[int] = []
        for one in listed:
            told = self._contents.setdefault(one.trade_id, one.content)
            if told != one.content:
                raise self._lie(call, f"trade {one.trade_id} came as {shown(told)} and as {shown(one.content)}")
            if ids and one.trade_id == ids[-1]:
                continue
            if ids and (one.trade_id > ids[-1]) == newest_first:
                raise self._lie(call, f"trade {one.trade_id} comes after {ids[-1]}: the ids go back")
            ids.append(one.trade_id)
        return ids

    def _holes(self, ids: Sequence[int]) -> list[Range]:
        """Where a page's ids jump; what of them is wanted is absent."""
        ascending = sorted(ids)
        holes = [(low + 1, high - 1) for low, high in pairwise(ascending) if high > low + 1]
        for first, last in holes:
            self._leaves_out(first, last)
        return holes


def listed_in(decoder: msgspec.json.Decoder[Any], raw: Sequence[msgspec.Raw]) -> list[Any]:
    """Elements of a page, decoded one by one; ValueError with the place of the first that is none."""
    found = []
    for index, element in enumerate(raw):
        try:
            found.append(decoder.decode(element))
        except DECODE_ERRORS as error:
            raise ValueError(f"item {index} has no trade id that can be read: {shown_error(error)}") from None
    return found


def shown_holes(holes: Sequence[Range]) -> str:
    """The first few, for a sentence."""
    told = ", ".join(f"{first} to {last}" if first < last else f"{first}" for first, last in holes[:3])
    return told if len(holes) <= 3 else f"{told} and {len(holes) - 3} more"
