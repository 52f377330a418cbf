"""What clients of the Advanced Trade feed may say: one channel a message, and every message to them has a number.

The number goes up by one with each message to a connection over all its channels, from 0; a lost message has had its
own. The books are Coinbase Exchange's, see `advanced_wire`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from marketflow.simulator import advanced_wire as wire
from marketflow.simulator.faults import ADVANCED
from marketflow.simulator.feed_messages import Batch, Fate, Stream, WireMessage, frame
from marketflow.simulator.market import Event, Trade

PATH = "/coinbase_advanced"
SNAPSHOT_TRADES = 50


class ClientRequest(msgspec.Struct):
    """What a client may say; unknown fields (a token, say) are ignored."""

    type: str
    channel: str = ""
    product_ids: list[str] = []


class AdvancedSession:
    """What one connection is subscribed to, and how far its numbers have come."""

    def __init__(self) -> None:
        self.subscribed: dict[str, list[str]] = {channel: [] for channel in wire.CHANNELS}
        self.wanted: frozenset[Stream] = frozenset()
        self._next_number = 0
        self._held_numbers: dict[int, int] = {}

    def change(self, channel: str, names: Sequence[str], *, subscribe: bool) -> list[str]:
        """Subscribe or unsubscribe; what that changed."""
        had = self.subscribed[channel]
        changed = [name for name in dict.fromkeys(names) if (name in had) is not subscribe]
        self.subscribed[channel] = [*had, *changed] if subscribe else [name for name in had if name not in changed]
        self.wanted = frozenset((name, product) for name, ids in self.subscribed.items() for product in ids)
        return changed

    def number(self) -> int:
        """The next."""
        self._next_number += 1
        return self._next_number - 1

    def number_of(self, message: WireMessage) -> int | None:
        """The number that a batch's message leaves under, or None where it does not leave to this connection."""
        if message.fate is Fate.RELEASED:
            return self._held_numbers.pop(message.slot, None)  # None: it was held back before this connection was there
        if message.fate is Fate.REPEATED:
            return self._next_number - 1
        if message.bare:
            return 0
        number = self.number()
        if message.fate is Fate.HELD:
            self._held_numbers[message.slot] = number
        return number if message.leaves else None


class AdvancedDialect:
    """The feed. A new subscriber of trades is told the last ones again, those too from before it came."""

    venue = ADVANCED
    trades_channel = wire.TRADES
    must_subscribe = True

    def __init__(self, products: Sequence[str], recent: Callable[[str, int], Sequence[Trade]]) -> None:
        """`recent` gives a product's last trades from history, oldest first."""
        self.products = frozenset(products)
        self._recent = recent
        self._last_ticker: dict[str, Trade] = {}
        self._beats = 0

    def session(self, path: str, query: Mapping[str, str]) -> AdvancedSession | None:
        """One path, whatever is asked of it."""
        return AdvancedSession() if path == PATH else None

    def answer(self, session: AdvancedSession, message: str | bytes, now_us: int) -> list[bytes]:
        """A snapshot of what is new to the connection and all that it is subscribed to now, or a refusal."""
        try:
            request = msgspec.json.decode(message, type=ClientRequest)
        except msgspec.DecodeError as error:
            return [wire.error(f"malformed request: {error}")]
        reason = self._refusal(request)
        if reason:
            return [wire.error(reason)]
        # the beats are of no product, whichever are named
        names = [wire.NO_PRODUCT] if request.channel == wire.HEARTBEATS else request.product_ids
        changed = session.change(request.channel, names, subscribe=request.type == "subscribe")
        shown = {name: [each or name for each in ids] for name, ids in session.subscribed.items()}
        replies = [wire.subscriptions(shown, now_us)]
        if request.type == "subscribe":
            replies += self._snapshots(request.channel, changed, now_us)
        return [wire.numbered(reply, session.number()) for reply in replies]

    def _refusal(self, request: ClientRequest) -> str:
        if request.type not in ("subscribe", "unsubscribe"):
            return f"unknown type {request.type}"
        if request.channel not in wire.CHANNELS:
            return f"channel {request.channel} is not supported"
        if request.channel != wire.HEARTBEATS and not request.product_ids:
            return f"channel {request.channel} wants product_ids"
        unknown = [product_id for product_id in request.product_ids if product_id not in self.products]
        return f"unknown product {', '.join(unknown)}" if unknown else ""

    def _snapshots(self, channel: str, products: Sequence[str], now_us: int) -> list[bytes]:
        if channel == wire.TRADES:
            told = [self._recent(product_id, SNAPSHOT_TRADES) for product_id in products]
            return [wire.envelope(channel, now_us, wire.trades_event(trades, "snapshot")) for trades in told if trades]
        if channel == wire.TICKER:
            last = [self._last_ticker[product_id] for product_id in products if product_id in self._last_ticker]
            return [wire.envelope(channel, now_us, wire.ticker_event(trade, "snapshot")) for trade in last]
        return []

    def messages(self, events: Sequence[Event]) -> list[WireMessage]:
        """A message of trades and one of the ticker a product, a beat a second."""
        feed = wire.messages(events, self._beats)
        self._beats += len(wire.beats(events))
        return feed

    def remember(self, trades: Sequence[Trade]) -> None:
        """The last ticker that could be heard."""
        for trade in trades:
            if trade.ends_order:
                self._last_ticker[trade.listing.product_id] = trade

    def frames(self, session: AdvancedSession, batch: Batch) -> tuple[bytes, int]:
        """The same messages as everybody's, each under the connection's own number."""
        frames: list[bytes] = []
        for message in batch.wanted(session.wanted):
            number = session.number_of(message)
            if number is not None:
                frames.append(frame(message.spoiled(wire.numbered(message.payload, number))))
        return b"".join(frames), len(frames)
