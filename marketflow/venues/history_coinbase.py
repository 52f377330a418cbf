"""Coinbase Exchange: /products/{id}/trades, newest first, `after=N` for ids below N.

A cursor that the venue did not give out (`after=last+1`) is usually taken, and one report says that it is not. So its
page is trusted only where it begins at the id asked for and has every id below; else the newest page is asked for and
the venue's own cursor (CB-AFTER) followed down. `before` is never used: reports of what it does contradict each other.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.venues.coinbase_exchange import VENUE
from marketflow.venues.history_walk import MAX_PAGES, PAGE_LIMIT, Call, Listed, Walk, Wanted, listed_in, shown_holes
from marketflow.venues.validation import RejectionError, elements_of

CHANNEL = "trades"


class _Item(msgspec.Struct, gc=False):
    trade_id: int
    price: Any = None
    size: Any = None
    side: Any = None
    time: Any = None


_ITEM = msgspec.json.Decoder(_Item)


def request(product: str, *, limit: int, after: int | str | None = None) -> str:
    """Canonical path and sorted query of one page."""
    query = {"limit": str(limit)} | ({} if after is None else {"after": str(after)})
    return f"/products/{PRODUCTS[product].names[VENUE]}/trades?{urlencode(sorted(query.items()))}"


def newest_request(product: str) -> str:
    """The newest trade alone."""
    return request(product, limit=1)


def newest_id(value: bytes) -> int:
    """The id in the answer to `newest_request`; ValueError where there is none."""
    found = listed(value)
    if not found:
        raise ValueError("an empty page")
    return max(one.trade_id for one in found)


def listed(value: bytes) -> list[Listed]:
    """The trades of a page as they stand on it; ValueError where it is none. Content is price, size, side and time."""
    try:
        raw = elements_of(value)
    except RejectionError as rejection:
        raise ValueError(rejection.detail) from None
    return [Listed(item.trade_id, (item.price, item.size, item.side, item.time)) for item in listed_in(_ITEM, raw)]


class CoinbaseWalk(Walk):
    """Straight at the hole first, down from the newest trade where that page cannot be trusted."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(VENUE, wanted)
        self._straight = True
        self.call = self._next(wanted.last_id + 1)

    def _next(self, cursor: int, token: str | None = None) -> Call:
        left = cursor - self.wanted.first_id
        limit = min(PAGE_LIMIT, left) if self._straight else PAGE_LIMIT
        path = request(self.wanted.product_id, limit=limit, after=token or cursor)
        return Call(path, limit, cursor=cursor)

    def _from_the_newest(self) -> Call | None:
        if not self._straight:
            return None
        self._straight = False
        return Call(request(self.wanted.product_id, limit=PAGE_LIMIT), PAGE_LIMIT)

    def read(self, value: bytes, older: str | None = None) -> None:
        """Take a page; `older` is its CB-AFTER."""
        call = self._taken()
        straight = self._straight
        if straight:
            self.call = self._from_the_newest()  # what is asked where this page is a lie
        try:
            ids = self._ordered(call, listed(value), newest_first=True)
        except ValueError as error:
            raise self._lie(call, str(error)) from None
        if not ids:
            raise self._lie(call, f"an empty page, where {call.cursor or self.wanted.last_id} is not the first trade")
        if call.cursor is not None and ids[0] >= call.cursor:
            raise self._lie(call, f"trade {ids[0]} came, ids below {call.cursor} were asked for")
        holes = self._holes(ids)
        if straight:
            self._judge_straight(call, ids, holes, older)
        else:
            self._judge_from_newest(call, ids, holes, older)

    def _judge_straight(self, call: Call, ids: list[int], holes: list[tuple[int, int]], older: str | None) -> None:
        assert call.cursor is not None
        if ids[0] != call.cursor - 1 or holes:
            left_out = [*([] if ids[0] == call.cursor - 1 else [(ids[0] + 1, call.cursor - 1)]), *holes]
            raise self._lie(call, f"the page leaves out {shown_holes(left_out)}")
        self._straight, self.call = True, None
        self._go_on(call, ids, older)

    def _judge_from_newest(self, call: Call, ids: list[int], holes: list[tuple[int, int]], older: str | None) -> None:
        if call.cursor is None and ids[0] < self.wanted.last_id:
            raise self._lie(call, f"the newest trade is {ids[0]}, before {self.wanted.last_id}")
        if call.cursor is not None and ids[0] < call.cursor - 1:
            # both sides are known: the page above ended at the cursor that the venue gave for this one
            self._leaves_out(ids[0] + 1, call.cursor - 1)
            holes = [(ids[0] + 1, call.cursor - 1), *holes]
        self._go_on(call, ids, older)
        if holes:
            raise self._lie(call, f"the page leaves out {shown_holes(holes)}")

    def _go_on(self, call: Call, ids: list[int], older: str | None) -> None:
        """To the next older page, unless the hole's first id was passed."""
        if ids[-1] <= self.wanted.first_id:
            return
        if len(ids) < call.limit:
            raise self._lie(call, f"the history ends at trade {ids[-1]}")
        if self._pages >= MAX_PAGES:
            raise self._lie(call, f"trade {self.wanted.first_id} is not within {MAX_PAGES} pages")
        self.call = self._next(ids[-1], older if older and older.isdigit() else None)
