"""Misbehaviour on request: which faults there are, which are due, how often each was done.

Faults act on the wire only. The market and its truth know nothing of them, so a drop is a real loss, and the same seed
makes the same market with and without faults. REST history knows of one alone: it never tells a trade that vanished.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.simulator.randomness import stable_number, stream
from marketflow.simulator.texts import SECOND_US

COINBASE = "coinbase_exchange"
ADVANCED = "coinbase_advanced"
BINANCE = "binance"
COINGECKO = "coingecko"
COINCAP = "coincap"
CRYPTOCOMPARE = "cryptocompare"
VENUES = (COINBASE, COINGECKO, ADVANCED, BINANCE, COINCAP, CRYPTOCOMPARE)
# a feed's channels whose messages can be spoilt, that of the trades first
FEED_CHANNELS = {
    COINBASE: ("matches", "ticker"),
    ADVANCED: ("market_trades", "ticker"),
    BINANCE: ("trade", "bookTicker"),
}
# the channel of an order that is meant for REST pages of a venue that has a feed too
REST = "rest"


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
    # a feed's message comes some seconds late; a drop that REST history does not hold either
    LATE = "late"
    VANISH = "vanish"
    ID_RESET = "id_reset"
    CLOCK_SKEW = "clock_skew"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_FIELD = "unknown_field"
    # an aggregator's page: prices of another currency under the same name, or nothing at all with status 200
    CURRENCY_SWITCH = "currency_switch"
    EMPTY_ARRAY = "empty_array"
    EMPTY_OBJECT = "empty_object"
    # a page of REST trades that leaves one out of its middle
    PAGE_HOLE = "page_hole"
    HALF_FRAME = "half_frame"
    HTTP_418 = "http_418"
    SLOW_BODY = "slow_body"


CONNECTION_FAULTS = frozenset({FaultKind.DISCONNECT, FaultKind.STALL, FaultKind.HALF_FRAME})
HTTP_FAULTS = frozenset({FaultKind.HTTP_429, FaultKind.HTTP_418, FaultKind.HTTP_5XX, FaultKind.SLOW_BODY})
# what only an answer to a request can do
PAGE_ONLY_FAULTS = frozenset(
    {FaultKind.CURRENCY_SWITCH, FaultKind.EMPTY_ARRAY, FaultKind.EMPTY_OBJECT, FaultKind.PAGE_HOLE}
)
MESSAGE_FAULTS = frozenset(FaultKind) - CONNECTION_FAULTS - HTTP_FAULTS
# what a feed's connections and messages can do
FEED_FAULTS = (MESSAGE_FAULTS | CONNECTION_FAULTS) - PAGE_ONLY_FAULTS
FEED_ONLY_FAULTS = frozenset(
    {
        FaultKind.DROP,
        FaultKind.REORDER,
        FaultKind.LATE,
        FaultKind.VANISH,
        FaultKind.ID_RESET,
        FaultKind.HALF_FRAME,
    }
)
TRADES_ONLY_FAULTS = frozenset({FaultKind.VANISH, FaultKind.ID_RESET})
TIME_FAULTS = frozenset({FaultKind.CLOCK_SKEW, FaultKind.FUTURE_TIME, FaultKind.YEAR_ONE})
TIMELESS_CHANNELS = ("bookTicker",)
PARTS = 2**53


class FaultRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /control/faults. Without `count` and `seconds` the fault is done once.

    `venue` and `product` narrow it. `channel` is the feed's channel that message faults act on; none means the one of
    the venue's trades, and `rest` means the venue's REST pages. `replace` makes a bad message take the good one's
    place instead of coming beside it. The `seconds` of a late message are how long it is held back.
    A stall or a slow body of REST takes as many, and comes again for that long unless `count` is given.
    """

    fault: FaultKind
    venue: str | None = None
    product: str | None = None
    channel: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    retry_after: Annotated[int, msgspec.Meta(ge=0)] = 30
    replace: bool = False


def impossible(kind: FaultKind, venue: str) -> str:
    """Why this venue cannot do that; empty where it can."""
    if venue not in FEED_CHANNELS and kind in FEED_ONLY_FAULTS:
        return f"{kind} is a fault of a feed, and {venue} has none"
    if venue != BINANCE and kind is FaultKind.HTTP_418:
        return f"{kind} is a ban of {BINANCE}, and {venue} never answers so"
    if venue not in FEED_CHANNELS and kind is FaultKind.PAGE_HOLE:
        return f"{kind} is a fault of REST trades, and {venue} has none"
    if venue in FEED_CHANNELS and kind is FaultKind.CURRENCY_SWITCH:
        return f"{kind} is a fault of an aggregator's page, and {venue} is an exchange"
    return ""


def refusal(request: FaultRequest) -> str:
    """Why an order can never be done; empty where it can."""
    if request.venue not in (None, *VENUES):
        return f"venue is one of {', '.join(VENUES)}"
    venues = [request.venue] if request.venue else list(VENUES)
    if request.venue and impossible(request.fault, request.venue):
        return impossible(request.fault, request.venue)
    feed = FEED_CHANNELS.get(request.venue or "")
    if feed and request.product is not None and request.venue not in PRODUCTS[request.product].names:
        return f"{request.product} is not traded on {request.venue}"
    if request.product is not None and request.venue in VENUES and not feed:
        return f"a page of {request.venue} has many assets: {request.fault} cannot be ordered for {request.product}"
    if request.fault in CONNECTION_FAULTS and request.venue in FEED_CHANNELS and request.channel != REST:
        given = [name for name in ("product", "count") if getattr(request, name) is not None]
        if given:
            return f"{request.fault} ends or holds whole connections, once: {given[0]} means nothing to it"
    if request.channel == REST and request.fault in FEED_ONLY_FAULTS:
        return f"{request.fault} is a fault of a feed: a page cannot do it"
    if request.channel in (None, REST):
        return ""
    channels = [channel for venue in venues for channel in FEED_CHANNELS.get(venue, ())]
    if request.channel not in channels:
        return f"channel is one of {', '.join(dict.fromkeys(channels))}" if channels else f"{venues[0]} has no channels"
    if request.fault in HTTP_FAULTS | PAGE_ONLY_FAULTS:
        return f"{request.fault} is a fault of an answer to a request: channel {request.channel} cannot do it"
    trades_channels = [FEED_CHANNELS[venue][0] for venue in venues if venue in FEED_CHANNELS]
    if request.fault in TRADES_ONLY_FAULTS and request.channel not in trades_channels:
        return f"{request.fault} is a fault of trades: {', '.join(trades_channels)}"
    if request.fault in TIME_FAULTS and request.channel in TIMELESS_CHANNELS:
        return f"{request.fault} is impossible: {request.channel} tells no time"
    return ""


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
            venue, _, text = name.rpartition(":")
            kind = FaultKind(text)
            for each in (venue,) if venue else VENUES:
                if not impossible(kind, each):
                    self._probabilities[each, kind] = probability
        self._seed = seed
        self._random = {place: stream(seed, "faults", *place) for place in self._probabilities}
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
        if request.fault is FaultKind.LATE:
            remaining, until_us = request.count or 1, None
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
        trade_ids: Sequence[int] = (),
    ) -> list[FaultRequest]:
        """The faults of these kinds that hit this message or request now, at most `most`; each one taken is counted.

        A feed's message has a channel, and those of trades their ids; a request has neither.
        """
        if not channel:
            kinds -= FEED_ONLY_FAULTS
        hits: list[FaultRequest] = []
        for fault in self.pending(now_us):
            request = fault.request
            if (
                (most is None or len(hits) < most)
                and request.fault in kinds
                and request.product in (None, product)
                and self._is_aimed(request, venue, channel)
            ):
                if fault.remaining is not None:
                    fault.remaining -= 1
                hits.append(request)
        chances = [(kind, p) for (where, kind), p in self._probabilities.items() if where == venue and kind in kinds]
        if channel not in ("", REST):
            random_hits = [kind for kind, p in chances if self._is_hit(venue, kind, product, trade_ids, p)]
        else:
            random_hits = [kind for kind, p in chances if self._random[venue, kind].random() < p]
        hits = [*hits, *(FaultRequest(fault=kind) for kind in random_hits)][:most]
        self.done.update(f"{venue}:{hit.fault.value}" for hit in hits)
        return hits

    @staticmethod
    def _is_aimed(request: FaultRequest, venue: str, channel: str) -> bool:
        """Whether an order is meant for this venue and, of a feed's messages, for this channel."""
        if request.venue not in (None, venue) or impossible(request.fault, venue):
            return False
        if not channel:
            return request.channel in (None, REST)
        return (request.channel or FEED_CHANNELS[venue][0]) == channel

    def _is_hit(
        self, venue: str, kind: FaultKind, product: str | None, trade_ids: Sequence[int], probability: float
    ) -> bool:
        """Chance falls on a trade and follows from it and the seed alone: who listens and when changes nothing."""
        return any(
            stable_number(self._seed, "faults", venue, kind, product, trade_id, below=PARTS) < probability * PARTS
            for trade_id in trade_ids
        )
