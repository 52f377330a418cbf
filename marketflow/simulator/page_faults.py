"""What can be wrong with a REST answer of status 200: one place for the pages of all venues.

A bad item is an extra copy of the page's first one at its end, in its place where the order says `replace` or where the
answer is one object. The rest takes the whole body's place, since one request has one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from marketflow.simulator.faults import (
    FEED_CHANNELS,
    PAGE_ONLY_FAULTS,
    REST,
    FaultBox,
    FaultKind,
    FaultRequest,
    impossible,
)
from marketflow.simulator.texts import SECOND_US, rfc3339_ms, rfc3339_us

OVERSIZE_BYTES = 9 * 1024**2  # above a topic's 8 MiB
SKEW_US = 3 * 3600 * SECOND_US
DAY_US = 24 * 3600 * SECOND_US
HOLE_NEEDS = 3  # items, so that there is a middle

Key = str | int


@dataclass(frozen=True, slots=True)
class Clock:
    """How a venue writes a time, and what it writes where it has none."""

    text: Callable[[int], object]
    zero: object


RFC3339_US = Clock(rfc3339_us, "0001-01-01T00:00:00.000000Z")
RFC3339_MS = Clock(rfc3339_ms, "0001-01-01T00:00:00.000Z")
# a number of an unset time is 0, which is 1970
MILLISECONDS = Clock(lambda moment_us: moment_us // 1000, 0)
SECONDS = Clock(lambda moment_us: moment_us // SECOND_US, 0)


@dataclass(frozen=True, slots=True)
class ItemShape:
    """Where an item, an object or a row, keeps what faults spoil. Without `size` it is the price that is negative."""

    price: Key
    size: Key | None = None
    time: Key | None = None
    clock: Clock = MILLISECONDS
    is_trade: bool = False


def array(items: Sequence[bytes], _: object = None) -> bytes:
    """A page that is an array of its items."""
    return b"[" + b",".join(items) + b"]"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer before it is put together. `moment` is the page's own time, as told, where its items have none."""

    items: Sequence[bytes]
    shape: ItemShape | None = None
    assemble: Callable[[Sequence[bytes], Any], bytes] = field(default=array)
    moment: object = None
    is_single: bool = False

    @property
    def body(self) -> bytes:
        """The good answer."""
        return self.assemble(self.items, self.moment)


def whole(body: bytes) -> Page:
    """An answer without items; no page fault hits it."""
    return Page((), assemble=lambda _items, _moment: body)


def _price(item: Any, shape: ItemShape) -> None:
    item[shape.price] = None


def _negative(item: Any, shape: ItemShape) -> None:
    key = shape.price if shape.size is None else shape.size
    value = item[key]
    item[key] = f"-{value}" if isinstance(value, str) else -abs(value or 1)


def _conflicting(item: Any, shape: ItemShape) -> None:
    price = item[shape.price]
    item[shape.price] = str(Decimal(price) + 1) if isinstance(price, str) else (price or 0) * 2 + 1


def _wrong_type(item: Any, shape: ItemShape) -> None:
    item[shape.price] = [item[shape.price]]


def _unknown_field(item: Any, _: ItemShape) -> None:
    _more(item, {"since": "yesterday"})


def _oversize(item: Any, _: ItemShape) -> None:
    _more(item, "x" * OVERSIZE_BYTES)


def _more(item: Any, value: object) -> None:
    if isinstance(item, list):
        item.append(value)
    else:
        item["padding"] = value


CHANGES: dict[FaultKind, Callable[[Any, ItemShape], None]] = {
    FaultKind.NULL_PRICE: _price,
    FaultKind.NEGATIVE_SIZE: _negative,
    FaultKind.CONFLICTING_DUPLICATE: _conflicting,
    FaultKind.WRONG_TYPE: _wrong_type,
    FaultKind.UNKNOWN_FIELD: _unknown_field,
    FaultKind.OVERSIZE: _oversize,
}
UNKNOWN_ITEM = msgspec.json.encode({"type": "status_of_everything", "note": "nobody documented this"})
TIMES: dict[FaultKind, Callable[[Clock, int], object]] = {
    FaultKind.FUTURE_TIME: lambda clock, now_us: clock.text(now_us + DAY_US),
    FaultKind.YEAR_ONE: lambda clock, _: clock.zero,
    FaultKind.CLOCK_SKEW: lambda clock, now_us: clock.text(now_us - SKEW_US),
}
BODIES: dict[FaultKind, Callable[[bytes], bytes]] = {
    FaultKind.MALFORMED: lambda body: body[:1] + b"," + body[1:],
    FaultKind.TRUNCATED: lambda body: body[: len(body) // 2],
    FaultKind.EMPTY_ARRAY: lambda _: b"[]",
    FaultKind.EMPTY_OBJECT: lambda _: b"{}",
}


def kinds_of(page: Page, venue: str) -> frozenset[FaultKind]:
    """The faults that can hit this page; one without items has nothing to spoil."""
    if page.shape is None or not page.items:
        return frozenset()
    kinds = {*CHANGES, *BODIES, FaultKind.DUPLICATE, FaultKind.UNKNOWN_TYPE, FaultKind.ERROR_OBJECT}
    if page.shape.time is not None or page.moment is not None:
        kinds |= TIMES.keys()
    if page.shape.is_trade and len(page.items) >= HOLE_NEEDS:
        kinds.add(FaultKind.PAGE_HOLE)
    return frozenset(kind for kind in kinds if not impossible(kind, venue))


def take(
    box: FaultBox, venue: str, kinds: Collection[FaultKind], now_us: int, product: str | None
) -> list[FaultRequest]:
    """The faults that hit this page. Those that a feed knows too are ordered for a page with the channel `rest`."""
    if venue not in FEED_CHANNELS:
        return box.take(venue, frozenset(kinds), now_us, product=product)
    hits = box.take(venue, PAGE_ONLY_FAULTS & frozenset(kinds), now_us, product=product)
    return hits + box.take(venue, frozenset(kinds) - PAGE_ONLY_FAULTS, now_us, product=product, channel=REST)


def spoiled(page: Page, hits: Sequence[FaultRequest], error: object, now_us: int) -> bytes:
    """The body with these faults; `error` is what the venue says where it says that something went wrong."""
    items, moment, first = list(page.items), page.moment, page.items[0]
    kinds = {hit.fault: hit for hit in sorted(hits, key=lambda hit: hit.fault)}
    if FaultKind.PAGE_HOLE in kinds:
        del items[len(items) // 2]
    for kind, hit in kinds.items():
        if kind in TIMES and page.moment is not None and page.shape is not None:
            moment = TIMES[kind](page.shape.clock, now_us)
            continue
        bad = _bad_item(kind, first, page.shape, now_us)
        if bad is not None and (hit.replace or page.is_single):
            items[0] = bad
        elif bad is not None:
            items.append(bad)
    body = page.assemble(items, moment)
    for kind in kinds:
        if kind is FaultKind.ERROR_OBJECT:
            body = msgspec.json.encode(error)
        elif kind in BODIES:
            body = BODIES[kind](body)
    return body


def _bad_item(kind: FaultKind, item: bytes, shape: ItemShape | None, now_us: int) -> bytes | None:
    """The item with that fault's change; None where the fault is none of an item."""
    if kind is FaultKind.DUPLICATE:
        return item
    if kind is FaultKind.UNKNOWN_TYPE:
        return UNKNOWN_ITEM
    if shape is None or (kind not in CHANGES and kind not in TIMES):
        return None
    changed = msgspec.json.decode(item)
    if kind in CHANGES:
        CHANGES[kind](changed, shape)
    elif shape.time is not None:
        changed[shape.time] = TIMES[kind](shape.clock, now_us)
    return msgspec.json.encode(changed)
