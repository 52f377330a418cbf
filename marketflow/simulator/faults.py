"""Misbehaviour on request: which faults there are, which are due, how often each was done.

Faults act on the wire only. The market, its truth and the REST history know nothing of them, so a drop is a real loss,
and the same seed makes the same market with and without faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec

from marketflow.simulator.randomness import stream
from marketflow.simulator.texts import SECOND_US

COINBASE = "coinbase_exchange"
COINGECKO = "coingecko"
VENUES = (COINBASE, COINGECKO)


class FaultKind(StrEnum):
    """What can go wrong; the value is what control requests and settings say."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    DISCONNECT = "disconnect"
    STALL = "stall"
    HTTP_429 = "http_429"
    HTTP_5XX = "http_5xx"
    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    NULL_PRICE = "null_price"
    NEGATIVE_SIZE = "negative_size"
    FUTURE_TIME = "future_time"
    YEAR_ONE = "year_one"
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    OVERSIZE = "oversize"
    UNKNOWN_TYPE = "unknown_type"
    ERROR_OBJECT = "error_object"


CONNECTION_FAULTS = frozenset({FaultKind.DISCONNECT, FaultKind.STALL})
HTTP_FAULTS = frozenset({FaultKind.HTTP_429, FaultKind.HTTP_5XX})
MESSAGE_FAULTS = frozenset(FaultKind) - CONNECTION_FAULTS - HTTP_FAULTS


class FaultRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /control/faults. Without `count` and `seconds` the fault is done once.

    `venue` and `product` narrow it. `channel` is the feed's channel that message faults act on. `replace` makes a
    malformed or truncated message take the good one's place instead of coming beside it.
    """

    fault: FaultKind
    venue: str | None = None
    product: str | None = None
    channel: str = "matches"
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0)] | None = None
    retry_after: Annotated[int, msgspec.Meta(ge=0)] = 30
    replace: bool = False


class ActiveFault(msgspec.Struct):
    """A request with what is left of it."""

    request: FaultRequest
    remaining: int | None
    until_us: int | None

    def is_over(self, now_us: int) -> bool:
        """Done often or long enough."""
        return self.remaining == 0 or (self.until_us is not None and now_us >= self.until_us)


class FaultBox:
    """Ordered faults and random ones."""

    def __init__(self, probabilities: Mapping[str, float], seed: int) -> None:
        """`probabilities` by fault name, or `venue:name`."""
        self._probabilities: dict[tuple[str, FaultKind], float] = {}
        for name, probability in probabilities.items():
            venue, _, kind = name.rpartition(":")
            for each in (venue,) if venue else VENUES:
                self._probabilities[each, FaultKind(kind)] = probability
        self._random = stream(seed, "faults")
        self.active: list[ActiveFault] = []
        self.done: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        """Nothing can happen: the fast path."""
        return not self.active and not self._probabilities

    def add(self, request: FaultRequest, now_us: int) -> None:
        """Take an order."""
        remaining = request.count if request.count is not None or request.seconds is not None else 1
        until_us = now_us + int(request.seconds * SECOND_US) if request.seconds is not None else None
        self.active.append(ActiveFault(request, remaining, until_us))

    def note(self, venue: str, kind: FaultKind) -> None:
        """Count a fault that was done elsewhere: at the connections."""
        self.done[f"{venue}:{kind.value}"] += 1

    def clear(self) -> None:
        """Forget all orders; random faults stay."""
        self.active.clear()

    def pending(self, now_us: int) -> list[ActiveFault]:
        """The orders that are not done yet."""
        self.active = [fault for fault in self.active if not fault.is_over(now_us)]
        return self.active

    def take(
        self,
        venue: str,
        kinds: frozenset[FaultKind],
        now_us: int,
        *,
        product: str | None = None,
        channel: str = "",
        most: int | None = None,
    ) -> list[FaultRequest]:
        """The faults of these kinds that hit this message or request now, at most `most`; each one taken is counted."""
        hits: list[FaultRequest] = []
        for fault in self.pending(now_us):
            request = fault.request
            if (
                (most is None or len(hits) < most)
                and request.fault in kinds
                and request.venue in (None, venue)
                and (request.product is None or request.product == product)
                and (not channel or request.channel == channel)
            ):
                if fault.remaining is not None:
                    fault.remaining -= 1
                hits.append(request)
        hits = [*hits, *self._random_hits(venue, kinds, channel)][:most]
        self.done.update(f"{venue}:{hit.fault.value}" for hit in hits)
        return hits

    def _random_hits(self, venue: str, kinds: frozenset[FaultKind], channel: str) -> list[FaultRequest]:
        if channel not in ("", "matches"):
            return []
        return [
            FaultRequest(fault=kind)
            for (where, kind), probability in self._probabilities.items()
            if where == venue and kind in kinds and self._random.random() < probability
        ]
