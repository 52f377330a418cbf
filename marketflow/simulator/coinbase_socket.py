"""What clients of the Coinbase Exchange feed may say: subscribe in time, then matches, tickers and heartbeats come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from marketflow.simulator import coinbase_wire
from marketflow.simulator.coinbase_wire import CHANNELS
from marketflow.simulator.faults import COINBASE
from marketflow.simulator.feed_messages import Batch, Stream, WireMessage
from marketflow.simulator.market import Event, Trade

PATH = "/coinbase_exchange"


class SubscriptionChannel(msgspec.Struct):
    """A channel with products of its own."""

    name: str
    product_ids: list[str] = []


class ClientRequest(msgspec.Struct):
    """What a client may say; unknown fields (a signature, say) are ignored."""

    type: str
    product_ids: list[str] = []
    channels: list[str | SubscriptionChannel] = []


class CoinbaseSession:
    """What one connection is subscribed to."""

    def __init__(self) -> None:
        self.subscribed: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        self.wanted: frozenset[Stream] = frozenset()

    def change(self, channel: str, product_id: str, *, subscribe: bool) -> bool:
        """Subscribe or unsubscribe; true where that changed anything."""
        products = self.subscribed[channel]
        if (product_id in products) is subscribe:
            return False
        if subscribe:
            products.append(product_id)
        else:
            products.remove(product_id)
        self.wanted = frozenset((name, product) for name, ids in self.subscribed.items() for product in ids)
        return True


class CoinbaseDialect:
    """The exchange's feed. A new subscriber is told the last match, and the last ticker, that the others were told."""

    venue = COINBASE
    trades_channel = "matches"
    must_subscribe = True

    def __init__(self, products: Sequence[str], seed: int, last: Mapping[str, Trade]) -> None:
        """`last` are the trades before the start; their books are not known any more, so there is no ticker of them."""
        self.products = frozenset(products)
        self._seed = seed
        self._last_match = dict(last)
        self._last_ticker: dict[str, Trade] = {}

    def session(self, path: str, query: Mapping[str, str]) -> CoinbaseSession | None:
        """One path, whatever is asked of it."""
        return CoinbaseSession() if path == PATH else None

    def answer(self, session: CoinbaseSession, message: str | bytes, now_us: int) -> list[bytes]:
        """All that is subscribed to now and what came last, or the reason of a refusal."""
        try:
            request = msgspec.json.decode(message, type=ClientRequest)
        except msgspec.DecodeError as error:
            return [coinbase_wire.error("Malformed JSON", str(error))]
        if request.type not in ("subscribe", "unsubscribe"):
            return [coinbase_wire.error("Failed to subscribe", f"Type {request.type} is not known")]
        asked = [
            (entry, request.product_ids) if isinstance(entry, str) else _own(entry, request.product_ids)
            for entry in request.channels
        ]
        reason = self._refusal(asked)
        if reason:
            return [coinbase_wire.error("Failed to subscribe", reason)]
        changed = [
            (channel, product_id)
            for channel, product_ids in asked
            for product_id in product_ids
            if session.change(channel, product_id, subscribe=request.type == "subscribe")
        ]
        replies = [coinbase_wire.subscriptions(session.subscribed)]
        if request.type == "subscribe":
            replies += [told for stream in changed for told in self._told_first(*stream)]
        return replies

    def _told_first(self, channel: str, product_id: str) -> list[bytes]:
        if channel == "matches" and product_id in self._last_match:
            return [coinbase_wire.match(self._last_match[product_id], self._seed, "last_match")]
        if channel == "ticker" and product_id in self._last_ticker:
            return [coinbase_wire.ticker(self._last_ticker[product_id])]
        return []

    def _refusal(self, asked: Sequence[tuple[str, list[str]]]) -> str:
        """Why a request is refused as a whole; empty where it is not."""
        if not asked:
            return "no channels provided"
        for channel, product_ids in asked:
            if channel not in CHANNELS:
                return f"{channel} is not a valid channel"
            if not product_ids:
                return f"{channel} requires at least one product_id"
            for product_id in product_ids:
                if product_id not in self.products:
                    return f"{product_id} is not a valid product"
        return ""

    def messages(self, events: Sequence[Event]) -> list[WireMessage]:
        """A match a trade, a ticker an order, a heartbeat a second."""
        return coinbase_wire.messages(events, self._seed)

    def remember(self, trades: Sequence[Trade]) -> None:
        """The last trade that could be heard."""
        for trade in trades:
            self._last_match[trade.listing.product_id] = trade
            if trade.ends_order:
                self._last_ticker[trade.listing.product_id] = trade

    def frames(self, session: CoinbaseSession, batch: Batch) -> tuple[bytes, int]:
        """Every connection gets the same bytes."""
        return batch.joined(session.wanted, None, lambda message: message.spoiled(message.payload))


def _own(entry: SubscriptionChannel, global_products: list[str]) -> tuple[str, list[str]]:
    return entry.name, entry.product_ids or global_products
