"""CryptoCompare's legacy API: prices by symbol, minute candles, and errors that come with status 200."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

from aiohttp import web

from marketflow.simulator import cryptocompare_pages
from marketflow.simulator.assets import AssetMarket, Quotation, other_currency
from marketflow.simulator.faults import CRYPTOCOMPARE
from marketflow.simulator.http_faults import TOO_MANY, HttpFaults, json_answer
from marketflow.simulator.limits import CallLimit
from marketflow.simulator.minutes import MINUTE_S, Candle, Minutes, filled
from marketflow.simulator.page_facts import PageFacts
from marketflow.simulator.page_faults import Page
from marketflow.simulator.texts import SECOND_US
from marketflow.simulator.truth import TruthPrice
from marketflow.simulator.universe import coin_of_symbol

MAX_MINUTES = 2000
DEFAULT_MINUTES = 1440
MAX_SYMBOLS_TEXT = 300
PARAMETER_ERROR = 2
Told = tuple[Quotation, int]


class CryptoCompareRest:
    """Handlers under /cryptocompare/data."""

    def __init__(
        self,
        assets: AssetMarket,
        facts: PageFacts,
        books: Mapping[str, str],
        minutes: Minutes,
        faults: HttpFaults,
        *,
        key_required: bool,
        calls_per_minute: int,
    ) -> None:
        """`books` are the usd products of asset ids."""
        self._assets, self._facts, self._books, self._minutes, self._faults = assets, facts, books, minutes, faults
        self._key_required = key_required
        self._limit = CallLimit(calls_per_minute)
        self._told: dict[tuple[str, str], Told] = {}

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        return [
            web.get("/cryptocompare/data/pricemultifull", self.prices),
            web.get("/cryptocompare/data/v2/histominute", self.histominute),
        ]

    def _refusal(self, request: web.Request, *names: str) -> web.Response | None:
        """Without a key, called too often, or without what the call is about."""
        keyed = request.headers.get("authorization", "").startswith("Apikey ") or "api_key" in request.query
        if self._key_required and not keyed:
            error = {"type": 1, "message": "You need a valid auth key or api key to access this endpoint"}
            return json_answer({"Data": {}, "Err": error}, HTTPStatus.UNAUTHORIZED)
        if self._limit.retry_after_s():
            return json_answer(TOO_MANY[CRYPTOCOMPARE])
        for name in names:
            text = request.query.get(name, "")
            if not text or len(text) > MAX_SYMBOLS_TEXT:
                message = f"{name} is a required param of 1 to {MAX_SYMBOLS_TEXT} characters."
                return json_answer(cryptocompare_pages.error_body(message, PARAMETER_ERROR))
        return None

    @staticmethod
    def _unknown_pair(symbol: str, currency: str) -> web.Response:
        message = f"cccagg_or_exchange market does not exist for this coin pair ({symbol}-{currency})"
        return json_answer(cryptocompare_pages.error_body(message, PARAMETER_ERROR))

    async def prices(self, request: web.Request) -> web.StreamResponse:
        """Each of `fsyms` in each of `tsyms`; pairs that are not known are left out, unless it is all of them."""
        refusal = self._refusal(request, "fsyms", "tsyms")
        if refusal is not None:
            return refusal
        symbols, currencies = (
            list(dict.fromkeys(request.query[name].upper().split(","))) for name in ("fsyms", "tsyms")
        )
        pairs = [(symbol, currency.lower()) for symbol in symbols for currency in currencies]
        if not any(self._quotation(*pair) for pair in pairs):
            return self._unknown_pair(symbols[0], currencies[0])
        return await self._faults.answer(
            request, CRYPTOCOMPARE, lambda switched: self._page(pairs, switched), has_currency=True
        )

    def _quotation(self, symbol: str, currency: str) -> Quotation | None:
        """Of the largest coin of that symbol: the venue knows one a symbol."""
        coin = coin_of_symbol(symbol)
        return self._assets.published.get((coin.id, currency)) if coin else None

    async def _page(self, pairs: list[tuple[str, str]], switched: bool) -> Page:
        found = {pair: self._quotation(*pair) for pair in pairs}
        told = {pair: self._now(pair, quotation) for pair, quotation in found.items() if quotation}
        await self._facts.tell(_fact(symbol, *told[symbol, currency]) for symbol, currency in told)
        items = [
            cryptocompare_pages.raw(other_currency(quotation) if switched else quotation, symbol, updated_s)
            for (symbol, _), (quotation, updated_s) in told.items()
        ]
        return Page(
            items,
            cryptocompare_pages.PRICE,
            lambda all_items, _moment: cryptocompare_pages.prices_body(items, all_items),
        )

    def _now(self, pair: tuple[str, str], quotation: Quotation) -> Told:
        """The pair's price and its second. Two prices never share one: a later price is of a later second."""
        known = self._told.get(pair)
        if known is None or known[0].last_updated_us != quotation.last_updated_us:
            earliest_s = self._facts.told_us(CRYPTOCOMPARE, *pair) // SECOND_US + 1
            known = self._told[pair] = quotation, max(quotation.last_updated_us // SECOND_US, earliest_s)
        return known

    async def histominute(self, request: web.Request) -> web.StreamResponse:
        """Minutes of the exchange's usd book, the running one included, oldest first."""
        refusal = self._refusal(request, "fsym", "tsym")
        if refusal is not None:
            return refusal
        symbol, currency = request.query["fsym"].upper(), request.query["tsym"].upper()
        coin = coin_of_symbol(symbol)
        product_id = self._books.get(coin.id) if coin and currency == "USD" else None
        if product_id is None:
            return self._unknown_pair(symbol, currency)
        numbers = {"limit": DEFAULT_MINUTES, "toTs": int(time.time())}
        for name in numbers.keys() & request.query.keys():
            text = request.query[name]
            if not (text.isascii() and text.isdigit()) or len(text) > 12:
                message = f"{name} param is not an integer."
                return json_answer(cryptocompare_pages.error_body(message, PARAMETER_ERROR))
            numbers[name] = int(text)
        if not 1 <= numbers["limit"] <= MAX_MINUTES:
            message = f"limit is larger than max value. ({MAX_MINUTES})"
            return json_answer(cryptocompare_pages.error_body(message, PARAMETER_ERROR))
        to_s = min(numbers["toTs"], int(time.time())) // MINUTE_S * MINUTE_S
        candles = await self._minutes.read(lambda: self._candles(product_id, to_s))
        candles = candles[-numbers["limit"] - 1 :]
        from_s = candles[0].start_s if candles else to_s

        async def make(_: bool) -> Page:
            return Page(
                [cryptocompare_pages.candle(candle) for candle in candles],
                cryptocompare_pages.CANDLE,
                lambda items, _moment: cryptocompare_pages.candles_body(items, from_s, to_s),
            )

        return await self._faults.answer(request, CRYPTOCOMPARE, make)

    def _candles(self, product_id: str, to_s: int) -> list[Candle]:
        return filled(self._minutes.between(product_id, 0, to_s), MINUTE_S, to_s)


def _fact(symbol: str, quotation: Quotation, updated_s: int) -> TruthPrice:
    return TruthPrice(
        source=CRYPTOCOMPARE,
        asset_id=symbol,
        vs_currency=quotation.vs_currency,
        price=quotation.price,
        market_cap=quotation.market_cap,
        last_updated_us=updated_s * SECOND_US,
    )
