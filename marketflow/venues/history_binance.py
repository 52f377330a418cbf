"""Binance: /api/v3/historicalTrades, `fromId` upward, oldest first; and what the 24 hour ticker says of the last id."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.venues.binance import HISTORICAL_TRADES, VENUE, historical_trades_request
from marketflow.venues.history_walk import PAGE_LIMIT, Call, Listed, Walk, Wanted, listed_in, shown_holes
from marketflow.venues.validation import DECODE_ERRORS, RejectionError, elements_of, shown_error

CHANNEL = HISTORICAL_TRADES
WEIGHT, NEWEST_WEIGHT = 25, 2


class _Item(msgspec.Struct, gc=False):
    id: int
    price: Any = None
    qty: Any = None
    time: Any = None
    isBuyerMaker: Any = None  # noqa: N815 - the venue's name


class _Mini(msgspec.Struct):
    symbol: str
    lastId: int  # noqa: N815 - the venue's name


_ITEM = msgspec.json.Decoder(_Item)
_MINI = msgspec.json.Decoder(_Mini)


def newest_request(product: str) -> str:
    """The 24 hour figures in their shortest form: weight 2 where one page of trades is 25."""
    query = {"symbol": PRODUCTS[product].names[VENUE], "type": "MINI"}
    return f"/api/v3/ticker/24hr?{urlencode(sorted(query.items()))}"


def newest_id(value: bytes) -> int:
    """`lastId`; ValueError where it is not there. -1 is a symbol that has not traded."""
    try:
        return _MINI.decode(value).lastId
    except DECODE_ERRORS as error:
        raise ValueError(shown_error(error)) from None


def listed(value: bytes) -> list[Listed]:
    """The trades of a page as they stand on it; ValueError where it is none. Content is price, size, time and side."""
    try:
        raw = elements_of(value)
    except RejectionError as rejection:
        raise ValueError(rejection.detail) from None
    return [Listed(item.id, (item.price, item.qty, item.time, item.isBuyerMaker)) for item in listed_in(_ITEM, raw)]


class BinanceWalk(Walk):
    """From the hole's first id upward."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__(VENUE, wanted)
        self.call = self._next(wanted.first_id)

    def _next(self, from_id: int) -> Call:
        limit = min(PAGE_LIMIT, self.wanted.last_id - from_id + 1)
        path = historical_trades_request(self.wanted.product_id, from_id, limit)
        return Call(path, limit, WEIGHT, cursor=from_id)

    def read(self, value: bytes, older: str | None = None) -> None:
        """Take a page; there is no cursor but the id."""
        del older
        call = self._taken()
        assert call.cursor is not None
        try:
            ids = self._ordered(call, listed(value), newest_first=False)
        except ValueError as error:
            raise self._lie(call, str(error)) from None
        if not ids:
            raise self._lie(call, f"the history ends before trade {call.cursor}")
        if ids[0] < call.cursor:
            raise self._lie(call, f"trade {ids[0]} came, ids from {call.cursor} were asked for")
        holes = self._holes(ids)
        if ids[0] > call.cursor:
            # fromId is an id and the venue goes on from it: what it skips it does not have
            self._leaves_out(call.cursor, ids[0] - 1)
            holes = [(call.cursor, ids[0] - 1), *holes]
        short = len(ids) < call.limit and ids[-1] < self.wanted.last_id
        if ids[-1] < self.wanted.last_id and not short:
            self.call = self._next(ids[-1] + 1)
        if holes:
            raise self._lie(call, f"the page leaves out {shown_holes(holes)}")
        if short:
            raise self._lie(call, f"the history ends at trade {ids[-1]}, before {self.wanted.last_id}")
