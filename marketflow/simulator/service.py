"""The simulator as a service: one loop makes the market, makes it true, then tells it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque

from aiohttp import web

from marketflow.settings import Settings
from marketflow.simulator.advanced_rest import AdvancedRest
from marketflow.simulator.binance_rest import BinanceRest
from marketflow.simulator.book import BestQuotes
from marketflow.simulator.coinbase_rest import CoinbaseRest
from marketflow.simulator.coinbase_socket import PATH
from marketflow.simulator.coincap_rest import CoinCapRest
from marketflow.simulator.coingecko_rest import CoinGeckoRest
from marketflow.simulator.configuration import SimulatorConfiguration
from marketflow.simulator.control import Control
from marketflow.simulator.cryptocompare_rest import CryptoCompareRest
from marketflow.simulator.faults import FaultBox, FaultKind
from marketflow.simulator.feeds import Feeds
from marketflow.simulator.http_faults import HttpFaults
from marketflow.simulator.minutes import Minutes
from marketflow.simulator.page_facts import PageFacts
from marketflow.simulator.simulation import Batch, Simulation
from marketflow.simulator.texts import SECOND_US

RATE_WINDOW_S = 10
SHUTDOWN_TIMEOUT_S = 2.0


def _now_us() -> int:
    return time.time_ns() // 1000


class Service:
    """Owns the simulation, its servers and the only clock."""

    def __init__(self, settings: Settings, configuration: SimulatorConfiguration) -> None:
        self._settings = settings
        self._configuration = configuration
        self._simulation = Simulation(
            configuration,
            products=configuration.products or settings.products,
            currencies=configuration.vs_currencies or settings.vs_currencies,
            truth_folder=settings.home / "truth",
            now_us=_now_us(),
        )
        self.truth = self._simulation.truth
        self.products = tuple(self._simulation.listings)
        self.faults = FaultBox(configuration.faults, configuration.seed)
        self._feeds = Feeds(self._simulation, configuration, self.faults)
        self._recent: deque[tuple[int, int]] = deque()  # (time, trades) of the last seconds
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; the ready line is printed once both ports listen and prices exist."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        now_us = _now_us()
        self._simulation.start(now_us)
        # prices at the very moment of the start: a trade of even a millisecond later would be one that nobody heard
        await self._tick(now_us)
        # an answer that stalls or trickles is not waited for at the end
        runner = web.AppRunner(
            self._application(), access_log=None, handle_signals=False, shutdown_timeout=SHUTDOWN_TIMEOUT_S
        )
        await runner.setup()
        site = web.TCPSite(runner, self._settings.listen_host, self._settings.simulator_rest_port)
        try:
            await site.start()
            host = self._settings.listen_host
            rest_port = runner.addresses[0][1]
            ws_port = await self._feeds.start(host, self._settings.simulator_ws_port)
            print(f"simulator ready: ws://{host}:{ws_port}{PATH} http://{host}:{rest_port}", flush=True)
            await self._wait_for_listeners()
            await self._make_market()
        finally:
            await self._feeds.stop()
            await runner.cleanup()
            self.truth.close()

    def _application(self) -> web.Application:
        application = web.Application()
        http_faults = HttpFaults(self.faults)
        limit = self._configuration.keyless_calls_per_minute
        history, assets = self._simulation.history, self._simulation.assets
        minutes, facts = Minutes(history, self.truth.trades), PageFacts(self.truth.prices)
        products = self._simulation.market.products

        def quotes(product_id: str) -> BestQuotes:
            return products[product_id].quotes

        for part in (
            Control(self),
            CoinbaseRest(history, minutes, http_faults),
            AdvancedRest(history, minutes, http_faults, quotes),
            BinanceRest(history, minutes, facts, http_faults, quotes),
            CoinGeckoRest(assets, http_faults, limit),
            CoinCapRest(assets, facts, http_faults, key_required=self._configuration.coincap_key_required),
            CryptoCompareRest(
                assets,
                facts,
                self._simulation.books,
                minutes,
                http_faults,
                key_required=self._configuration.cryptocompare_key_required,
                calls_per_minute=self._configuration.cryptocompare_calls_per_minute,
            ),
        ):
            application.add_routes(part.routes())
        return application

    async def _wait_for_listeners(self) -> None:
        """Until somebody hears the trades of every product, the time is up, or it is told to end."""
        if not self._configuration.wait_for_listener_s:
            return
        deadline = time.monotonic() + self._configuration.wait_for_listener_s
        self.pause()
        while time.monotonic() < deadline and not self._stop.is_set() and not self._feeds.are_all_heard:
            await asyncio.sleep(0.05)
        self.resume()

    async def _make_market(self) -> None:
        tick_s = self._configuration.tick_ms / 1000
        while not self._stop.is_set():
            started = time.monotonic()
            await self._tick(_now_us())
            # at least one turn of the loop, however far behind, so that clients are read and answered
            pause_s = max(0.0, tick_s - (time.monotonic() - started))
            try:
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()
            except TimeoutError:
                continue

    async def _tick(self, now_us: int) -> None:
        batch = self._simulation.step(now_us, now_us)
        if batch.trades or batch.quotations:
            await asyncio.to_thread(self.truth.sync)
        self._publish(batch, now_us)
        for product in self._simulation.market.products.values():
            product.forgive_lag(_now_us())

    def _publish(self, batch: Batch, now_us: int) -> None:
        self._simulation.publish(batch)
        self._feeds.tell(batch.events, now_us)
        self._recent.append((now_us, len(batch.trades)))
        while self._recent[0][0] < now_us - RATE_WINDOW_S * SECOND_US:
            self._recent.popleft()

    # what control asks for
    def pause(self, product: str | None = None) -> None:
        """Stop trading, all of it or one product; the products keep their ids and books."""
        if product is None:
            self._simulation.pause()
        else:
            self._simulation.market.halt(product)

    def resume(self, product: str | None = None) -> None:
        """Trade again, from now; nothing is made up for the pause."""
        market = self._simulation.market
        if product is None and market.paused:
            self._simulation.start(_now_us())
        for halted in market.halted & ({product} if product else market.halted):
            market.lift(halted, _now_us())

    def misbehave(self, fault: FaultKind, venue: str | None, seconds: float | None) -> None:
        """Cut or stall the connections of one venue's feed, or of all feeds."""
        self._feeds.misbehave(fault, venue, seconds)

    def status(self) -> dict[str, object]:
        """What is made, who listens, what was done wrong."""
        market = self._simulation.market
        return {
            "paused": market.paused,
            "halted": sorted(market.halted),
            "products": {
                product_id: {"last_trade_id": product.last_trade_id, "sequence": product.sequence, "mid": product.mid}
                for product_id, product in market.products.items()
            },
            "trades_per_s": sum(trades for _, trades in self._recent) / RATE_WINDOW_S,
            "rate_per_product": self._configuration.rate,
            "assets": len(self._simulation.assets.published),
            **self._feeds.status(),
            "faults_active": [fault.request for fault in self.faults.pending(_now_us())],
            "faults_done": dict(self.faults.done),
        }


async def serve(settings: Settings, configuration: SimulatorConfiguration) -> None:
    """Run the service to its end."""
    await Service(settings, configuration).run()
