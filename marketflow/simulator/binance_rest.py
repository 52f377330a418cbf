"""Binance Spot REST: old trades by id, 24 hour figures, klines, all within a weight a minute."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from http import HTTPStatus

import msgspec
from aiohttp import web

from marketflow.contracts.products import PRODUCTS
from marketflow.simulator import binance_pages
from marketflow.simulator.binance_pages import DAY_MS, INTERVALS_S, Statistics, ticker_weight
from marketflow.simulator.book import BestQuotes
from marketflow.simulator.faults import BINANCE
from marketflow.simulator.history import TradeHistory
from marketflow.simulator.http_faults import HttpFaults, json_answer, known, rate_limited
from marketflow.simulator.limits import WeightLimit
from marketflow.simulator.minutes import MINUTE_S, Candle, Minutes, filled, joined, merged, of_trades
from marketflow.simulator.page_facts import PageFacts
from marketflow.simulator.page_faults import Page, whole
from marketflow.simulator.truth import TruthPrice

MAX_LIMIT = 1000
DEFAULT_LIMIT = 500
WEIGHT_PER_MINUTE = 6000
WEIGHTS = {"historicalTrades": 25, "trades": 25, "klines": 2}
LONGEST_NUMBER = 18
Headers = Mapping[str, str]


class BinanceError(Exception):
    """A refusal in the exchange's own numbers; raised and caught inside this file only."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(msg)
        self.body = {"code": code, "msg": msg}


def _number(request: web.Request, name: str, default: int | None = None) -> int | None:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > LONGEST_NUMBER:
        raise BinanceError(
            -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,{LONGEST_NUMBER}}}$'."
        )
    return int(text)


def _limit(request: web.Request) -> int:
    limit = _number(request, "limit", DEFAULT_LIMIT)
    if not limit:
        raise BinanceError(-1130, "Data sent for parameter 'limit' is not valid.")
    return min(limit, MAX_LIMIT)


class BinanceRest:
    """Handlers under /binance/api/v3."""

    def __init__(
        self,
        history: TradeHistory,
        minutes: Minutes,
        facts: PageFacts,
        faults: HttpFaults,
        quotes: Callable[[str], BestQuotes],
    ) -> None:
        self._history, self._minutes, self._facts, self._faults, self._quotes = history, minutes, facts, faults, quotes
        self._limit = WeightLimit(WEIGHT_PER_MINUTE)
        self._symbols = {
            PRODUCTS[product_id].names[BINANCE]: listing
            for product_id, listing in history.listings.items()
            if listing.venue == BINANCE
        }
        # pages of one millisecond tell the same
        self._moment_us = 0
        self._statistics: dict[str, Statistics] = {}

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        handlers = {
            "ping": self._ping,
            "trades": self._newest,
            "historicalTrades": self._historical,
            "ticker/24hr": self._ticker,
            "klines": self._klines,
        }
        return [web.get(f"/binance/api/v3/{path}", self._weighed(handler)) for path, handler in handlers.items()]

    def _weighed(
        self, handler: Callable[[web.Request, Headers], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Count the call before anything else, and put refusals into the exchange's words."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                weight, error = self._weight(request), None
            except BinanceError as refusal:
                weight, error = 1, refusal
            retry_after_s = self._limit.retry_after_s(weight, time.time())
            headers = {"X-MBX-USED-WEIGHT-1M": str(self._limit.used)}
            if retry_after_s:
                return rate_limited(BINANCE, retry_after_s, headers)
            try:
                if error is not None:
                    raise error
                return await handler(request, headers)
            except BinanceError as refusal:
                return json_answer(refusal.body, HTTPStatus.BAD_REQUEST, headers)

        return handle

    def _weight(self, request: web.Request) -> int:
        path = request.path.removeprefix("/binance/api/v3/")
        return ticker_weight(self._asked(request)) if path == "ticker/24hr" else WEIGHTS.get(path, 1)

    async def _ping(self, request: web.Request, headers: Headers) -> web.StreamResponse:
        return await self._faults.answer(request, BINANCE, known(whole(b"{}")), headers=headers)

    def _symbol(self, request: web.Request) -> str:
        symbol = request.query.get("symbol")
        if not symbol:
            raise BinanceError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        if symbol not in self._symbols:
            raise BinanceError(-1121, "Invalid symbol.")
        return symbol

    async def _newest(self, request: web.Request, headers: Headers) -> web.StreamResponse:
        return await self._trades(request, headers, None)

    async def _historical(self, request: web.Request, headers: Headers) -> web.StreamResponse:
        return await self._trades(request, headers, _number(request, "fromId"))

    async def _trades(self, request: web.Request, headers: Headers, from_id: int | None) -> web.StreamResponse:
        """Oldest first: from `from_id` upward, or the newest. An id before all that is held begins at the first."""
        product_id, limit = self._symbols[self._symbol(request)].product_id, _limit(request)
        after = None
        if from_id is not None:
            from_id = max(from_id, self._history.products[product_id].first_trade_id)
            after = from_id + limit
        newest_first = self._history.page(
            product_id, limit=limit, after=after, before=None if from_id is None else from_id - 1
        )
        page = Page([binance_pages.trade(trade) for trade in newest_first[::-1]], binance_pages.TRADE)
        return await self._faults.answer(request, BINANCE, known(page), headers=headers, product=product_id)

    async def _klines(self, request: web.Request, headers: Headers) -> web.StreamResponse:
        """Oldest first; without `startTime` the newest ones. The running candle is the last."""
        product_id, limit = self._symbols[self._symbol(request)].product_id, _limit(request)
        seconds = INTERVALS_S.get(request.query.get("interval", ""))
        if seconds is None:
            raise BinanceError(-1120, "Invalid interval.")
        start_ms, end_ms = _number(request, "startTime"), _number(request, "endTime")
        candles = await self._minutes.read(lambda: self._candles(product_id, seconds))
        chosen = [
            candle
            for candle in candles
            if (start_ms or 0) <= candle.start_s * 1000 and (end_ms is None or candle.start_s * 1000 <= end_ms)
        ]
        chosen = chosen[-limit:] if start_ms is None else chosen[:limit]
        page = Page([binance_pages.kline(candle, seconds) for candle in chosen], binance_pages.KLINE)
        return await self._faults.answer(request, BINANCE, known(page), headers=headers, product=product_id)

    def _candles(self, product_id: str, seconds: int) -> list[Candle]:
        now_s = int(time.time())
        candles = merged(self._minutes.between(product_id, 0, now_s), seconds)
        return filled(candles, seconds, now_s - now_s % seconds)

    def _asked(self, request: web.Request) -> list[str] | None:
        """The symbols that a call names; None for all."""
        one, many = request.query.get("symbol"), request.query.get("symbols")
        if one is not None and many is not None:
            raise BinanceError(-1128, "Combination of optional parameters invalid.")
        if one is not None:
            return [one]
        if many is None:
            return None
        try:
            return msgspec.json.decode(many, type=list[str])
        except msgspec.DecodeError:
            raise BinanceError(-1100, "Illegal characters found in parameter 'symbols'.") from None

    async def _ticker(self, request: web.Request, headers: Headers) -> web.StreamResponse:
        """The last 24 hours of one symbol, of some, or of all. Each price is a fact before it is told."""
        asked = self._asked(request)
        symbols = list(self._symbols) if asked is None else list(dict.fromkeys(asked))
        if not set(symbols) <= self._symbols.keys():
            raise BinanceError(-1121, "Invalid symbol.")
        kind = request.query.get("type", "FULL")
        if kind not in ("FULL", "MINI"):
            raise BinanceError(-1139, "Invalid ticker type.")
        is_single = "symbol" in request.query

        async def make(_: bool) -> Page:
            statistics = await self._minutes.read(lambda: self._now(symbols))
            await self._facts.tell(_fact(each) for each in statistics if each.last is not None)
            return Page(
                [binance_pages.ticker(each, kind) for each in statistics],
                binance_pages.TICKER,
                lambda items, _moment: binance_pages.one_or_array(items, is_single),
                is_single=is_single,
            )

        product_id = self._symbols[symbols[0]].product_id if is_single else None
        return await self._faults.answer(request, BINANCE, make, headers=headers, product=product_id)

    def _now(self, symbols: list[str]) -> list[Statistics]:
        moment_us = self._facts.moment_us(BINANCE)
        if moment_us != self._moment_us:
            self._moment_us = moment_us
            self._statistics.clear()
        for symbol in symbols:
            if symbol not in self._statistics:
                self._statistics[symbol] = self._of(symbol, moment_us // 1000)
        return [self._statistics[symbol] for symbol in symbols]

    def _of(self, symbol: str, close_ms: int) -> Statistics:
        """The exact 24 hours: the minute that they begin in trade by trade, all others by their candles."""
        listing = self._symbols[symbol]
        product_id, open_s = listing.product_id, (close_ms - DAY_MS) // 1000
        first_s = open_s - open_s % MINUTE_S
        candles = self._minutes.between(product_id, first_s, close_ms // 1000)
        before = self._minutes.before(product_id, first_s)
        previous_close = before.close if before else candles[0].open if candles else Decimal(0)
        if candles and candles[0].start_s == first_s:
            cut = candles.pop(0)
            trades = self._history.page(product_id, limit=cut.count, after=cut.last_id + 1, before=cut.first_id - 1)
            earlier = [trade for trade in trades if trade.event_us <= (close_ms - DAY_MS) * 1000]
            previous_close = Decimal(earlier[0].price) if earlier else previous_close
            inside = of_trades(trades[: len(trades) - len(earlier)][::-1], first_s)
            candles = [inside, *candles] if inside else candles
        return Statistics(
            symbol,
            listing,
            close_ms,
            joined(candles),
            previous_close,
            self._minutes.last_trade.get(product_id),
            self._quotes(product_id),
        )


def _fact(of: Statistics) -> TruthPrice:
    return TruthPrice(
        source=BINANCE,
        asset_id=of.symbol,
        vs_currency=of.listing.quote,
        price=of.last_price,
        market_cap=None,
        last_updated_us=of.close_ms * 1000,
    )
