"""Bad copies of a feed's good messages, in each venue's own words. All trades of a message are changed alike."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import msgspec

from marketflow.simulator.faults import ADVANCED, BINANCE, COINBASE, FaultKind
from marketflow.simulator.feed_messages import Fate, WireMessage

OVERSIZE_BYTES = 9 * 1024**2  # above a topic's 8 MiB, below the 16 MiB at which a feed's socket gives up
BEFORE_ALL_MARKETS = "0001-01-01T00:00:00.000000Z"
BEFORE_ALL_MARKETS_MS = -62_135_596_800_000
DAY = timedelta(days=1)
CLOCK_SKEW = timedelta(hours=-5)
LOW_IDS = 1_000_000  # an id that began again goes on from the good one's last six digits

Fields = dict[str, Any]


class Shape(NamedTuple):
    """Names of a message's fields. `elements` leads to the array of its trades or tickers, if it has one."""

    price: str
    size: str
    conflicting: str  # what a second message of the same id says otherwise
    typed: str  # what comes in the wrong type
    times: tuple[str, ...]
    elements: str = ""
    trade_id: str = ""

    def items(self, message: Fields) -> list[Fields]:
        """The parts that tell one fact each."""
        return [item for event in message["events"] for item in event[self.elements]] if self.elements else [message]


SHAPES = {
    (COINBASE, "matches"): Shape("price", "size", "price", "trade_id", ("time",), trade_id="trade_id"),
    (COINBASE, "ticker"): Shape("price", "best_bid_size", "price", "sequence", ("time",)),
    (ADVANCED, "market_trades"): Shape("price", "size", "price", "trade_id", ("time",), "trades", "trade_id"),
    # a ticker's time is its envelope's
    (ADVANCED, "ticker"): Shape("best_bid", "best_bid_quantity", "price", "product_id", ("timestamp",), "tickers"),
    (BINANCE, "trade"): Shape("p", "q", "p", "t", ("T", "E"), trade_id="t"),
    (BINANCE, "bookTicker"): Shape("b", "B", "A", "u", ()),
}
ERROR_OBJECTS: dict[str, Fields] = {
    COINBASE: {"type": "error", "message": "Internal error", "reason": "please try again"},
    ADVANCED: {"type": "error", "message": "internal error, please try again"},
    BINANCE: {"error": {"code": -1000, "msg": "An unknown error occurred while processing the request."}, "id": None},
}
UNDOCUMENTED = "nobody documented this"


def _null_price(message: Fields, shape: Shape) -> None:
    for item in shape.items(message):
        item[shape.price] = None


def _negative_size(message: Fields, shape: Shape) -> None:
    for item in shape.items(message):
        item[shape.size] = f"-{item[shape.size]}"


def _conflicting_duplicate(message: Fields, shape: Shape) -> None:
    for item in shape.items(message):
        item[shape.conflicting] = str(Decimal(item[shape.conflicting]) + 1)


def _wrong_type(message: Fields, shape: Shape) -> None:
    for item in shape.items(message):
        value = item[shape.typed]
        item[shape.typed] = str(value) if isinstance(value, int) else int(value) if value.isdigit() else 0


def _id_reset(message: Fields, shape: Shape) -> None:
    for item in shape.items(message):
        value = item[shape.trade_id]
        item[shape.trade_id] = type(value)(int(value) % LOW_IDS)


def _year_one(message: Fields, shape: Shape) -> None:
    for holder, name in _times(message, shape):
        holder[name] = BEFORE_ALL_MARKETS_MS if isinstance(holder[name], int) else BEFORE_ALL_MARKETS


def _shifted(message: Fields, shape: Shape, by: timedelta) -> None:
    for holder, name in _times(message, shape):
        time = holder[name]
        if isinstance(time, int):
            holder[name] = time + by // timedelta(milliseconds=1)
        else:
            holder[name] = (datetime.fromisoformat(time) + by).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _times(message: Fields, shape: Shape) -> list[tuple[Fields, str]]:
    holders = [message] if "timestamp" in shape.times else shape.items(message)
    return [(holder, name) for holder in holders for name in shape.times]


def _oversize(message: Fields, _: Shape) -> None:
    message["padding"] = "x" * OVERSIZE_BYTES


def _unknown_field(message: Fields, shape: Shape) -> None:
    for item in [message, *shape.items(message)]:
        item["new_field"] = {"since": "today", "note": UNDOCUMENTED}


CHANGES: dict[FaultKind, Callable[[Fields, Shape], None]] = {
    FaultKind.NULL_PRICE: _null_price,
    FaultKind.NEGATIVE_SIZE: _negative_size,
    FaultKind.FUTURE_TIME: partial(_shifted, by=DAY),
    FaultKind.YEAR_ONE: _year_one,
    FaultKind.CLOCK_SKEW: partial(_shifted, by=CLOCK_SKEW),
    FaultKind.CONFLICTING_DUPLICATE: _conflicting_duplicate,
    FaultKind.WRONG_TYPE: _wrong_type,
    FaultKind.ID_RESET: _id_reset,
    FaultKind.OVERSIZE: _oversize,
    FaultKind.UNKNOWN_FIELD: _unknown_field,
}


def _unknown_type(venue: str, message: Fields) -> Fields:
    """A message of a type that no documentation has, in an envelope where the venue has one."""
    if venue == ADVANCED:
        return message | {"channel": "status_of_everything", "events": [{"type": "update", "note": UNDOCUMENTED}]}
    if venue == BINANCE:
        return {"e": "statusOfEverything", "s": message["s"], "note": UNDOCUMENTED}
    return {"type": "status_of_everything", "product_id": message.get("product_id"), "note": UNDOCUMENTED}


def malformed(payload: bytes) -> bytes:
    """Not JSON any more, though still text: a value is missing in the middle."""
    return payload.replace(b":", b":,", 1)


def truncated(payload: bytes) -> bytes:
    """The first half."""
    return payload[: len(payload) // 2]


def bad_copy(venue: str, kind: FaultKind, message: WireMessage) -> WireMessage:
    """The message with that fault's change."""
    if kind is FaultKind.DUPLICATE:
        return message._replace(fate=Fate.REPEATED)
    if kind in (FaultKind.MALFORMED, FaultKind.TRUNCATED):
        return message._replace(spoil=malformed if kind is FaultKind.MALFORMED else truncated)
    if kind is FaultKind.ERROR_OBJECT:
        return message._replace(payload=msgspec.json.encode(ERROR_OBJECTS[venue]), bare=True)
    fields = msgspec.json.decode(message.payload)
    if kind is FaultKind.UNKNOWN_TYPE:
        fields = _unknown_type(venue, fields)
    else:
        CHANGES[kind](fields, SHAPES[venue, message.channel])
    return message._replace(payload=msgspec.json.encode(fields))
