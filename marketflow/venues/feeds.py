"""What a feed has to know of a venue's WebSocket: where to connect, what to send, and what to see in a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from marketflow.venues import binance, coinbase_advanced, coinbase_exchange
from marketflow.venues.seen import Seen


@dataclass(frozen=True, slots=True)
class Protocol:
    """One venue's feed.

    `path` is put behind the venue's address; `subscribe` gives the messages to send after connecting, for canonical
    products; `look` never raises. `page_channel` is the channel of its pages of REST trades. `heartbeats` says whether
    the venue speaks every few seconds, so that silence is a fault; `tells_last_id` whether it says then which trade of
    a product was the last.
    """

    venue: str
    path: str
    subscribe: Callable[[Iterable[str]], list[bytes]]
    look: Callable[[bytes], Seen]
    page_channel: str
    heartbeats: bool
    tells_last_id: bool = False


PROTOCOLS: dict[str, Protocol] = {
    protocol.venue: protocol
    for protocol in (
        Protocol(
            venue=coinbase_exchange.VENUE,
            path="",
            subscribe=coinbase_exchange.subscribe,
            look=coinbase_exchange.look,
            page_channel=coinbase_exchange.REST_TRADES,
            heartbeats=True,
            tells_last_id=True,
        ),
        Protocol(
            venue=coinbase_advanced.VENUE,
            path="",
            subscribe=coinbase_advanced.subscribe,
            look=coinbase_advanced.look,
            page_channel=coinbase_advanced.REST_TRADES,
            heartbeats=True,
        ),
        Protocol(
            venue=binance.VENUE,
            path="/stream",
            subscribe=binance.subscribe,
            look=binance.look,
            page_channel=binance.HISTORICAL_TRADES,
            heartbeats=False,
        ),
        # venue new: protocol
    )
}
