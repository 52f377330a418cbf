"""Bad copies of good messages and page items, one function a fault."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from marketflow.simulator.coinbase_wire import WireMessage
from marketflow.simulator.faults import COINBASE, FaultBox, FaultKind, FaultRequest

OVERSIZE_BYTES = 9 * 1024**2  # above a topic's 8 MiB, below the 16 MiB at which a feed's socket gives up
BEFORE_ALL_MARKETS = "0001-01-01T00:00:00.000000Z"

Fields = dict[str, Any]


def _null_price(message: Fields) -> Fields:
    return message | {"price" if "price" in message else "current_price": None}


def _negative_size(message: Fields) -> Fields:
    if "current_price" in message:
        return message | {"current_price": -abs(message["current_price"] or 1)}
    size = "size" if "size" in message else "best_bid_size"
    return message | {size: "-" + message[size]}


def _future_time(message: Fields) -> Fields:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    return message | {_time_field(message): tomorrow.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def _year_one(message: Fields) -> Fields:
    return message | {_time_field(message): BEFORE_ALL_MARKETS}


def _conflicting_duplicate(message: Fields) -> Fields:
    if "current_price" in message:
        return message | {"current_price": (message["current_price"] or 0) * 2 + 1}
    return message | {"price": str(Decimal(message["price"]) + 1)}


def _oversize(message: Fields) -> Fields:
    return message | {"padding": "x" * OVERSIZE_BYTES}


def _unknown_type(message: Fields) -> Fields:
    return {"type": "status_of_everything", "product_id": message.get("product_id"), "note": "nobody documented this"}


def _error_object(_: Fields) -> Fields:
    return {"type": "error", "message": "Internal error", "reason": "please try again"}


BAD_COPIES: dict[FaultKind, Callable[[Fields], Fields]] = {
    FaultKind.NULL_PRICE: _null_price,
    FaultKind.NEGATIVE_SIZE: _negative_size,
    FaultKind.FUTURE_TIME: _future_time,
    FaultKind.YEAR_ONE: _year_one,
    FaultKind.CONFLICTING_DUPLICATE: _conflicting_duplicate,
    FaultKind.OVERSIZE: _oversize,
    FaultKind.UNKNOWN_TYPE: _unknown_type,
    FaultKind.ERROR_OBJECT: _error_object,
}


def _time_field(message: Fields) -> str:
    return "time" if "time" in message else "last_updated"


def malformed(payload: bytes) -> bytes:
    """Not JSON any more, though still text: a value is missing in the middle."""
    return payload.replace(b":", b":,", 1)


def truncated(payload: bytes) -> bytes:
    """The first half."""
    return payload[: len(payload) // 2]


def bad_copy(kind: FaultKind, payload: bytes) -> bytes:
    """The payload with that fault's change."""
    if kind is FaultKind.DUPLICATE:
        return payload
    if kind is FaultKind.MALFORMED:
        return malformed(payload)
    if kind is FaultKind.TRUNCATED:
        return truncated(payload)
    return msgspec.json.encode(BAD_COPIES[kind](msgspec.json.decode(payload)))


class FeedFaults:
    """Turns the good messages of a batch into what the wire carries."""

    def __init__(self, box: FaultBox, kinds: frozenset[FaultKind]) -> None:
        self._box = box
        self._kinds = kinds
        self._late: dict[tuple[str, str], WireMessage] = {}  # held back until the next of the same stream is sent

    def apply(self, messages: list[WireMessage], now_us: int) -> list[WireMessage]:
        """Drops leave out, all else comes beside the good message, unless asked to replace it."""
        if self._box.is_idle and not self._late:
            return messages
        sent: list[WireMessage] = []
        for message in messages:
            stream = (message.channel, message.product_id)
            hits: list[FaultRequest] = []
            if message.channel != "heartbeat":
                hits = self._box.take(
                    COINBASE, self._kinds, now_us, product=message.product_id, channel=message.channel
                )
            kinds = {hit.fault for hit in hits}
            if FaultKind.REORDER in kinds and stream not in self._late:
                self._late[stream] = message
                continue
            if FaultKind.DROP not in kinds and not any(hit.replace for hit in hits):
                sent.append(message)
            sent.extend(
                message._replace(payload=bad_copy(kind, message.payload))
                for kind in sorted(kinds - {FaultKind.DROP, FaultKind.REORDER})
            )
            if stream in self._late:
                sent.append(self._late.pop(stream))
        return sent
