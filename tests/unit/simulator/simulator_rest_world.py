"""A market with its truth and all REST servers on it, asked without a socket; and the slow way to its candles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from marketflow.contracts.records import Parsed
from marketflow.simulator import configuration
from marketflow.simulator.advanced_rest import AdvancedRest
from marketflow.simulator.binance_rest import BinanceRest
from marketflow.simulator.coinbase_rest import CoinbaseRest
from marketflow.simulator.coincap_rest import CoinCapRest
from marketflow.simulator.coingecko_rest import CoinGeckoRest
from marketflow.simulator.cryptocompare_rest import CryptoCompareRest
from marketflow.simulator.faults import FaultBox, FaultRequest
from marketflow.simulator.http_faults import HttpFaults
from marketflow.simulator.market import Trade
from marketflow.simulator.minutes import Minutes
from marketflow.simulator.page_facts import PageFacts
from marketflow.simulator.simulation import Simulation
from marketflow.venues import parse

PRODUCTS = ("BTC-USD", "ETH-USD", "BTC-USDT", "ETH-USDT")
SECOND_US = 1_000_000
Row = dict[str, Any]


def now_us() -> int:
    return time.time_ns() // 1000


class World:
    """Steps a simulation and asks its servers."""

    def __init__(self, home: Path, start_us: int, now_ns: Callable[[], int] = time.time_ns, **knobs: Any) -> None:
        self.home = home
        self.simulation = Simulation(
            configuration.load(**{"rate": 5.0, "tape": False, **knobs}),
            products=PRODUCTS,
            currencies=("usd", "eur"),
            truth_folder=home,
            now_us=start_us,
        )
        self.simulation.start(start_us)
        self._now_ns = now_ns
        self.open()

    def open(self, probabilities: dict[str, float] | None = None) -> None:
        """The servers on what is there now, with faults by chance or without."""
        simulation = self.simulation
        history, assets = simulation.history, simulation.assets
        self.box = FaultBox(probabilities or {}, 1)
        faults = HttpFaults(self.box)
        minutes = Minutes(history, simulation.truth.trades)
        facts = PageFacts(simulation.truth.prices, self._now_ns)

        def quotes(product_id: str) -> Any:
            return simulation.market.products[product_id].quotes

        self._application = web.Application()
        for part in (
            CoinbaseRest(history, minutes, faults),
            AdvancedRest(history, minutes, faults, quotes),
            BinanceRest(history, minutes, facts, faults, quotes),
            CoinGeckoRest(assets, faults, 0),
            CoinCapRest(assets, facts, faults, key_required=False),
            CryptoCompareRest(assets, facts, simulation.books, minutes, faults, key_required=False, calls_per_minute=0),
        ):
            self._application.add_routes(part.routes())

    def run(self, until_us: int, from_us: int) -> None:
        """Trades and prices, told as they are made."""
        for moment_us in range(from_us, until_us, SECOND_US):
            batch = self.simulation.step(moment_us, moment_us)
            self.simulation.truth.sync()
            self.simulation.publish(batch)

    def trade(self, until_us: int) -> None:
        """Trades alone, in one step: a day of prices of all coins would take long."""
        trades = [event for event in self.simulation.market.step(until_us) if isinstance(event, Trade)]
        self.simulation.history.append(trades, until_us)
        self.simulation.truth.sync()
        self.simulation.history.show()

    async def ask(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of a GET."""
        request = make_mocked_request("GET", path)
        match = await self._application.router.resolve(request)
        match.add_app(self._application)
        request._match_info = match
        response = await match.handler(request)
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        return response.status, response.body, {name.lower(): value for name, value in response.headers.items()}

    async def get(self, path: str) -> Any:
        """The JSON of a good answer, fractions as they are written."""
        status, body, _ = await self.ask(path)
        assert status == 200, body
        return json.loads(body, parse_float=Decimal)

    def order(self, **fault: Any) -> None:
        """One fault, as control would take it."""
        self.box.add(msgspec.convert(fault, FaultRequest), now_us())

    def trades(self, product_id: str) -> list[Row]:
        """The truth, oldest first."""
        lines = (self.home / "trades.ndjson").read_text().splitlines()
        return [trade for trade in map(json.loads, lines) if trade["product_id"] == product_id]

    def prices(self, source: str) -> dict[tuple[str, str, int], tuple[Decimal, Decimal | None]]:
        """The truth's prices of a source; each fact is there once."""
        facts = [json.loads(line) for line in (self.home / "prices.ndjson").read_text().splitlines()]
        keyed = {
            (fact["asset_id"], fact["vs_currency"], fact["last_updated_us"]): (
                Decimal(fact["price"]),
                None if fact["market_cap"] is None else Decimal(fact["market_cap"]),
            )
            for fact in facts
            if fact["source"] == source
        }
        assert len(keyed) == sum(fact["source"] == source for fact in facts)
        return keyed


def slow_candles(trades: list[Row], seconds: int) -> dict[int, Row]:
    """Candles by their start, folded in the obvious way; none where nothing was traded."""
    spans: dict[int, list[Row]] = {}
    for trade in trades:
        start_s = trade["event_us"] // SECOND_US // seconds * seconds
        spans.setdefault(start_s, []).append(trade)
    candles = {}
    for start_s, inside in spans.items():
        prices = [Decimal(trade["price"]) for trade in inside]
        sizes = [Decimal(trade["size"]) for trade in inside]
        bought = [number for number, trade in enumerate(inside) if trade["taker_side"] == "buy"]
        candles[start_s] = {
            "open": prices[0],
            "high": max(prices),
            "low": min(prices),
            "close": prices[-1],
            "volume": sum(sizes),
            "amount": sum(price * size for price, size in zip(prices, sizes, strict=True)),
            "count": len(inside),
            "taker_volume": sum((sizes[number] for number in bought), Decimal(0)),
            "taker_amount": sum((prices[number] * sizes[number] for number in bought), Decimal(0)),
        }
    return candles


def paused_world(home: Path) -> World:
    """Five minutes up to now; within them a pause of two and a half, so that a whole minute has no trade."""
    now = now_us()
    made = World(home, now - 300 * SECOND_US)
    made.run(now - 210 * SECOND_US, now - 300 * SECOND_US)
    made.simulation.start(now - 60 * SECOND_US)
    made.run(now - SECOND_US, now - 60 * SECOND_US)
    return made


def parsed(venue: str, channel: str, body: bytes, product_id: str = "", **headers: str) -> tuple[Any, ...]:
    outcome = parse(
        {"venue": venue, "channel": channel, "product_id": product_id, "received_at": str(now_us()), **headers}, body
    )
    assert isinstance(outcome, Parsed), outcome
    return outcome.items
