"""What clients of Binance's streams may say: streams are named in the path, or later by method messages.

`/binance/ws/<stream>` and `/binance/ws` tell raw messages, `/binance/stream?streams=a/b` wraps each in its stream's
name; `timeUnit=MICROSECOND` makes times finer. A stream that does not exist brings nothing, as at the venue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from marketflow.simulator import binance_wire as wire
from marketflow.simulator.faults import BINANCE
from marketflow.simulator.feed_messages import Batch, Stream, WireMessage
from marketflow.simulator.market import Event, Trade

RAW_PATH = "/binance/ws"
COMBINED_PATH = "/binance/stream"
METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")
UNKNOWN_METHOD, INVALID_JSON = 2, 3


class ClientRequest(msgspec.Struct):
    """What a client may say."""

    method: str
    params: list[str] = []
    id: int | str | None = None


class BinanceSession:
    """What one connection is subscribed to, and in which form it gets it."""

    def __init__(self, *, combined: bool, microseconds: bool) -> None:
        self.combined = combined
        self.microseconds = microseconds
        self.names: list[str] = []
        self.wanted: frozenset[Stream] = frozenset()


class BinanceDialect:
    """The streams. Nothing is told first: a new subscriber waits for the next trade."""

    venue = BINANCE
    trades_channel = wire.TRADE
    must_subscribe = False

    def __init__(self, products: Sequence[str]) -> None:
        self.products = frozenset(products)
        self._streams = {
            f"{wire.symbol(product_id).lower()}@{channel}": (channel, product_id)
            for product_id in products
            for channel in wire.STREAMS
        }

    def session(self, path: str, query: Mapping[str, str]) -> BinanceSession | None:
        """The streams that the path names, if it is one of the venue's."""
        combined = path == COMBINED_PATH
        if combined:
            named = query.get("streams", "")
        elif path == RAW_PATH or path.startswith(f"{RAW_PATH}/"):
            named = path.removeprefix(RAW_PATH)
        else:
            return None
        microseconds = query.get("timeUnit", "").upper() == "MICROSECOND"
        session = BinanceSession(combined=combined, microseconds=microseconds)
        self._set(session, [name for name in named.split("/") if name])
        return session

    def _set(self, session: BinanceSession, names: Sequence[str]) -> None:
        session.names = list(dict.fromkeys(names))
        session.wanted = frozenset(self._streams[name] for name in session.names if name in self._streams)

    def answer(self, session: BinanceSession, message: str | bytes, now_us: int) -> list[bytes]:
        """The request's own id with what came of it; answers are never wrapped."""
        try:
            request = msgspec.json.decode(message, type=ClientRequest)
        except msgspec.DecodeError as error:
            return [wire.error(INVALID_JSON, f"Invalid JSON: {error}")]
        if request.method == "LIST_SUBSCRIPTIONS":
            return [wire.result(request.id, session.names)]
        if request.method not in METHODS:
            expected = ", ".join(f"`{method}`" for method in METHODS)
            text = f"Invalid request: unknown variant `{request.method}`, expected one of {expected}"
            return [wire.error(UNKNOWN_METHOD, text, request.id)]
        if request.method == "SUBSCRIBE":
            self._set(session, [*session.names, *request.params])
        else:
            self._set(session, [name for name in session.names if name not in request.params])
        return [wire.result(request.id)]

    def messages(self, events: Sequence[Event]) -> list[WireMessage]:
        """A trade each, a book an order."""
        return wire.messages(events)

    def remember(self, trades: Sequence[Trade]) -> None:
        """Nothing is told twice here."""

    def frames(self, session: BinanceSession, batch: Batch) -> tuple[bytes, int]:
        """The same bytes for every connection of one form."""
        form = session.combined, session.microseconds
        write = partial(wire.in_form, combined=session.combined, microseconds=session.microseconds)
        return batch.joined(session.wanted, form, write)
