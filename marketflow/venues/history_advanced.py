"""Coinbase Advanced Trade: /market/products/{id}/ticker gives trades between two whole seconds, newest first.

There is no paging by id: the hole is looked for in a window of time. A full page may have been cut, so while ids are
missing its window is halved, but for what the page had; a second that holds more than a page cannot be.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlencode

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.venues.coinbase_advanced import REST_TRADES, VENUE
from marketflow.venues.history_walk import MAX_PAGES, PAGE_LIMIT, Call, Listed, Walk, Wanted, listed_in, shown_holes
from marketflow.venues.id_ranges import Range, of_ids, union, without
from marketflow.venues.validation import EPOCH, RejectionError, fields_of, shown

CHANNEL = REST_TRADES
SECOND_US = 1_000_000
# beyond the neighbours' seconds, since ids and times may run against each other a little; doubled by every try
SLACK_S = 1
# where a neighbour is not known
GUESS_S = 120


class _Item(msgspec.Struct, gc=False):
    trade_id: str
    product_id: str
    time: str
    price: object = None
    size: object = None
    side: object = None


_ITEM = msgspec.json.Decoder(_Item)


def request(product: str, *, limit: int, window: Range | None = None) -> str:
    """Canonical path and sorted query of one page."""
    query = {"limit": str(limit)}
    if window is not None:
        query |= {"start": str(window[0]), "end": str(window[1])}
    name = PRODUCTS[product].names[VENUE]
    return f"/market/products/{name}/ticker?{urlencode(sorted(query.items()))}"


def newest_request(product: str) -> str:
    """The newest trade alone."""
    return request(product, limit=1)


def newest_id(value: bytes) -> int:
    """The id in the answer to `newest_request`; ValueError where there is none."""
    items = items_of(value)
    if not items:
        raise ValueError("an answer without trades")
    return max(id_of(item) for item in items)


def items_of(value: bytes) -> list[_Item]:
    """The trades of a page as they stand on it; ValueError where it is none."""
    try:
        raw = fields_of(value).elements("trades")
    except RejectionError as rejection:
        raise ValueError(rejection.detail) from None
    return listed_in(_ITEM, raw)


def id_of(item: _Item) -> int:
    """A trade's id, which is a text there."""
    if not (item.trade_id.isascii() and item.trade_id.isdigit() and len(item.trade_id) <= 19):
        raise ValueError(f"trade_id is {shown(item.trade_id)}, not digits")
    return int(item.trade_id)


def _second_of(item: _Item) -> int:
    try:
        at = datetime.fromisoformat(item.time)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(f"time of trade {item.trade_id} is {shown(item.time)}, not a time with a zone")
    return int((at - EPOCH).total_seconds() // 1)


class AdvancedWalk(Walk):
    """By windows of time, the newest first."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(VENUE, wanted)
        wider = 2**wanted.tries
        slack_s, guess_s = SLACK_S * wider, GUESS_S * wider
        before = (
            wanted.detected_us // SECOND_US - guess_s if wanted.before_us is None else wanted.before_us // SECOND_US
        )
        after = wanted.detected_us if wanted.after_us is None else wanted.after_us
        self._windows: list[Range] = [(max(0, before - slack_s), -(-after // SECOND_US) + slack_s)]
        self._left = [(wanted.first_id, wanted.last_id)]
        self.call = self._next()

    def _next(self) -> Call | None:
        if not self._windows or not self._left:
            return None
        window = self._windows.pop()
        path = request(self.wanted.product_id, limit=PAGE_LIMIT, window=window)
        return Call(path, PAGE_LIMIT, window=window)

    def read(self, value: bytes, older: str | None = None) -> None:
        """Take a page; there is no cursor."""
        del older
        call = self._taken()
        assert call.window is not None
        try:
            items = items_of(value)
            ids = self._ordered(call, self._of_this_product(items), newest_first=True)
            seconds = [_second_of(item) for item in items]
        except ValueError as error:
            self.call = self._next()
            raise self._lie(call, str(error)) from None
        outside = [second for second in seconds if not call.window[0] <= second <= call.window[1]]
        if outside:
            self.call = self._next()
            raise self._lie(call, f"a trade of second {outside[0]} came, {call.window} was asked for")
        holes = self._holes(ids)
        self._left = without(self._left, of_ids(ids))
        cut = len(items) >= call.limit
        undivided = self._divide(call.window, min(seconds)) if cut else None
        self.call = self._next() if self._pages < MAX_PAGES else None
        self._complain(call, holes, undivided)

    def _complain(self, call: Call, holes: list[Range], undivided: Range | None) -> None:
        if holes:
            raise self._lie(call, f"the page leaves out {shown_holes(holes)}")
        if undivided is not None and self._left:
            raise self._lie(call, f"more than {call.limit} trades in the seconds {undivided}: the page is cut")
        missing = without(self._left, self.absent)
        if self.call is None and missing:
            raise self._lie(call, f"the window does not hold {shown_holes(union(missing))}")

    def _of_this_product(self, items: list[_Item]) -> list[Listed]:
        name = PRODUCTS[self.wanted.product_id].names[VENUE]
        other = next((item.product_id for item in items if item.product_id != name), None)
        if other is not None:
            raise ValueError(f"a trade of {shown(other)} came, {name} was asked for")
        return [Listed(id_of(item), (item.price, item.size, item.side, item.time)) for item in items]

    def _divide(self, window: Range, oldest_s: int) -> Range | None:
        """Halve a window whose page was cut; the window itself where it is too short to be."""
        start, end = window
        if end - start < 2:
            return window
        middle = (start + end) // 2
        self._windows.append((start, middle))
        if oldest_s >= middle:  # else the page had all of the newer half
            self._windows.append((middle, end))
        return None
