"""The whole market on one truth: what the service and the offline capture share."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from marketflow.simulator import tape, universe
from marketflow.simulator.assets import AssetMarket, Quotation
from marketflow.simulator.configuration import SimulatorConfiguration
from marketflow.simulator.faults import BINANCE
from marketflow.simulator.history import TradeHistory, last_prices
from marketflow.simulator.listings import Listing, listing
from marketflow.simulator.market import Event, Market, ProductMarket, Trade
from marketflow.simulator.truth import Truth, price_line


class Batch(NamedTuple):
    """What one step made; nothing of it may be told before `Truth.sync`."""

    events: list[Event]
    quotations: list[Quotation]

    @property
    def trades(self) -> list[Trade]:
        """The facts among the events."""
        return [event for event in self.events if isinstance(event, Trade)]


class Simulation:
    """Products, prices and their truth. Times are arguments: the clock belongs to the caller."""

    def __init__(
        self,
        configuration: SimulatorConfiguration,
        *,
        products: tuple[str, ...],
        currencies: tuple[str, ...],
        truth_folder: Path,
        now_us: int,
    ) -> None:
        """Continue what `truth_folder` holds, or begin there."""
        self.configuration = configuration
        self.listings: dict[str, Listing] = {product_id: listing(product_id) for product_id in products}
        self.truth = Truth(truth_folder)
        self.history = TradeHistory(self.truth.trades, self.truth.vanished, tuple(self.listings.values()))
        self.market = self._market(now_us)
        self.assets = AssetMarket(
            universe.load(),
            currencies=currencies,
            seed=configuration.seed,
            mid_of=self._usd_mid,
            last=last_prices(self.truth.prices),
        )
        # the book that prices an asset in usd
        self.books = {entry.asset_id: entry.product_id for entry in self.listings.values() if entry.quote == "usd"}

    def _market(self, now_us: int) -> Market:
        tapes = tape.load() if self.configuration.tape else {}
        days = self.history.day_windows(now_us)
        markets: dict[str, ProductMarket] = {}
        # what another book follows is made before it
        for product_id in sorted(self.listings, key=lambda each: self._followed(each) is not None):
            markets[product_id] = ProductMarket(
                self.listings[product_id],
                seed=self.configuration.seed,
                rate=self.configuration.rate,
                tape=tapes.get(product_id, ()),
                last=self.history.last_trade(product_id),
                day=days[product_id],
                follows=markets.get(self._followed(product_id) or ""),
            )
        return Market(markets)

    def _followed(self, product_id: str) -> str | None:
        """The usd book of the same asset that a book of Binance's follows, where it is listed."""
        entry = self.listings[product_id]
        if entry.venue != BINANCE or not entry.asset_id:
            return None
        same = (other for other in self.listings.values() if (other.asset_id, other.quote) == (entry.asset_id, "usd"))
        return next((other.product_id for other in same), None)

    def _usd_mid(self, asset_id: str) -> float | None:
        product_id = self.books.get(asset_id)
        return self.market.products[product_id].mid if product_id else None

    def start(self, now_us: int) -> None:
        """Open the market at `now_us`, at first or after a pause."""
        self.market.start(now_us)
        self.assets.start(now_us)

    def step(self, until_us: int, market_us: int) -> Batch:
        """Make everything up to `until_us` and write it to the truth; `market_us` is the time of writing."""
        events = self.market.step(until_us)
        quotations = [] if self.market.paused else self.assets.advance(until_us)
        batch = Batch(events, quotations)
        trades = batch.trades
        if trades:
            self.history.append(trades, market_us)
        if quotations:
            self.truth.prices.append(b"".join(map(price_line, quotations)))
        return batch

    def publish(self, batch: Batch) -> None:
        """The batch is synced: REST and pages may tell it."""
        self.history.show()
        self.assets.publish(batch.quotations)

    def pause(self) -> None:
        """No trades and no new prices until `start`; heartbeats go on, as on a quiet exchange."""
        self.market.paused = True
