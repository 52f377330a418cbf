"""The feeds of all venues on one port: the same market told in three ways."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from marketflow.simulator.advanced_socket import AdvancedDialect
from marketflow.simulator.binance_socket import BinanceDialect
from marketflow.simulator.coinbase_socket import CoinbaseDialect
from marketflow.simulator.configuration import SimulatorConfiguration
from marketflow.simulator.faults import ADVANCED, BINANCE, COINBASE, FEED_FAULTS, FaultBox, FaultKind
from marketflow.simulator.feed_faults import FeedFaults
from marketflow.simulator.feed_server import Dialect, FeedServer, VenueFeed
from marketflow.simulator.market import Event
from marketflow.simulator.simulation import Simulation


class Feeds:
    """Tells each batch on every feed that somebody hears."""

    def __init__(self, simulation: Simulation, configuration: SimulatorConfiguration, box: FaultBox) -> None:
        """Before the start: what history holds by then is what a first subscriber is told again."""
        self._history = simulation.history
        self._vanished = simulation.truth.vanished
        listed = simulation.listings.keys()
        self._awaited = listed & set(configuration.wait_for_products or listed)
        self._box = box
        books: dict[str, list[str]] = {COINBASE: [], BINANCE: []}
        for listing in simulation.listings.values():
            books[listing.venue].append(listing.product_id)
        last = {trade.listing.product_id: trade for each in books[COINBASE] for trade in self._history.recent(each, 1)}
        told: tuple[tuple[str, Dialect], ...] = (
            (COINBASE, CoinbaseDialect(books[COINBASE], configuration.seed, last)),
            (COINBASE, AdvancedDialect(books[COINBASE], self._history.recent)),
            (BINANCE, BinanceDialect(books[BINANCE])),
        )
        self.venues: dict[str, VenueFeed] = {}
        for book, dialect in told:
            forget = partial(self._history.forget, venue=dialect.venue)
            faults = FeedFaults(dialect.venue, box, FEED_FAULTS, forget)
            slow_reader_bytes = configuration.slow_reader_bytes
            self.venues[dialect.venue] = VenueFeed(dialect, faults, book=book, slow_reader_bytes=slow_reader_bytes)
        self._server = FeedServer(tuple(self.venues.values()), subscribe_within_s=configuration.subscribe_within_s)

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, also where 0 was asked for."""
        return await self._server.start(host, port)

    async def stop(self) -> None:
        """Close every connection as a venue that goes away does."""
        await self._server.stop()

    def tell(self, events: Sequence[Event], now_us: int) -> None:
        """Send a batch that is synced. What vanishes of it is written down before REST can be asked."""
        for feed in self.venues.values():
            feed.tell(events, now_us, self._history.is_forgotten)
        self._vanished.sync()

    def misbehave(self, fault: FaultKind, venue: str | None, seconds: float | None) -> None:
        """Do to the connections of one venue's feed, or of all, what was ordered."""
        for name in (venue,) if venue else (COINBASE, ADVANCED, BINANCE):
            self.venues[name].misbehave(fault, seconds)
            self._box.note(name, fault)

    @property
    def are_all_heard(self) -> bool:
        """Whether somebody hears the trades of every product that is waited for, at whichever venue."""
        heard: set[str] = set()
        return heard.union(*(feed.heard for feed in self.venues.values())) >= self._awaited

    def status(self) -> dict[str, object]:
        """Who listens: of all feeds, and of each."""
        feeds = {
            name: {
                "clients": len(feed.clients),
                "sent_messages": feed.sent_messages,
                "slow_readers_cut": feed.slow_readers_cut,
            }
            for name, feed in self.venues.items()
        }
        totals = {name: sum(feed[name] for feed in feeds.values()) for name in feeds[COINBASE]}
        return {**totals, "feeds": feeds}
