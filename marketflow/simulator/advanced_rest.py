"""Coinbase Advanced Trade REST: trades between two whole seconds, and candles, of Coinbase Exchange's books."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

import msgspec
from aiohttp import web

from marketflow.simulator.book import BestQuotes
from marketflow.simulator.coinbase_wire import MAKER_SIDE
from marketflow.simulator.faults import ADVANCED, COINBASE
from marketflow.simulator.history import TradeHistory
from marketflow.simulator.http_faults import HttpFaults, json_answer, known
from marketflow.simulator.minutes import MINUTE_S, Candle, Minutes, merged
from marketflow.simulator.page_faults import RFC3339_US, Clock, ItemShape, Page
from marketflow.simulator.texts import SECOND_US, fixed, rfc3339_us
from marketflow.simulator.truth import TruthTrade

MAX_LIMIT = 1000
DEFAULT_LIMIT = 100
SHAPE = ItemShape(price="price", size="size", time="time", clock=RFC3339_US, is_trade=True)
MAX_CANDLES = 350
GRANULARITIES_S = {
    **{"ONE_MINUTE": 60, "FIVE_MINUTE": 300, "FIFTEEN_MINUTE": 900},
    **{"ONE_HOUR": 3_600, "SIX_HOUR": 21_600, "ONE_DAY": 86_400},
}
TEXT_SECONDS = Clock(lambda moment_us: str(moment_us // SECOND_US), "0")
CANDLE = ItemShape(price="close", size="volume", time="start", clock=TEXT_SECONDS)


def item(trade: TruthTrade) -> bytes:
    """One trade: the id as text, the maker's side. The quotes at its time are empty, as the venue sends them."""
    return msgspec.json.encode(
        {
            "trade_id": str(trade.trade_id),
            "product_id": trade.product_id,
            "price": trade.price,
            "size": trade.size,
            "time": rfc3339_us(trade.event_us),
            "side": MAKER_SIDE[trade.taker_side].upper(),
            "bid": "",
            "ask": "",
            "exchange": "coinbase",
        }
    )


def candle_item(candle: Candle) -> bytes:
    """One candle: every figure a text."""
    told = {"start": str(candle.start_s)}
    for name in ("low", "high", "open", "close", "volume"):
        told[name] = f"{getattr(candle, name).normalize():f}"
    return msgspec.json.encode(told)


def _error(status: HTTPStatus, error: str, code: int, message: str) -> web.Response:
    return json_answer({"error": error, "code": code, "message": message, "details": []}, status)


class AdvancedRest:
    """Handlers under /coinbase_advanced."""

    def __init__(
        self, history: TradeHistory, minutes: Minutes, faults: HttpFaults, quotes: Callable[[str], BestQuotes]
    ) -> None:
        self._history, self._minutes, self._faults, self._quotes = history, minutes, faults, quotes
        self._listings = {name: entry for name, entry in history.listings.items() if entry.venue == COINBASE}

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        product = "/coinbase_advanced/api/v3/brokerage/market/products/{product_id}"
        return [web.get(f"{product}/ticker", self.ticker), web.get(f"{product}/candles", self.candles)]

    async def ticker(self, request: web.Request) -> web.StreamResponse:
        """Newest first: the newest trades, or those of the whole seconds `start` to `end`, both included."""
        product_id = request.match_info["product_id"]
        if product_id not in self._listings:
            return _error(HTTPStatus.NOT_FOUND, "NOT_FOUND", 5, f"product {product_id} not found")
        try:
            limit = int(request.query.get("limit", DEFAULT_LIMIT))
            start_s, end_s = (int(request.query[name]) if name in request.query else None for name in ("start", "end"))
        except ValueError:
            return _error(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", 3, "limit, start and end are whole numbers")
        if not 1 <= limit <= MAX_LIMIT:
            return _error(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", 3, f"limit is 1 to {MAX_LIMIT}")
        if start_s is None and end_s is None:
            trades = self._history.page(product_id, limit=limit, after=None, before=None)
        else:
            end_s = int(time.time()) if end_s is None else end_s
            trades = await self._minutes.read(lambda: self._between(product_id, start_s or 0, end_s, limit))
        best = self._quotes(product_id)
        decimals = self._listings[product_id].price_decimals
        tail = f'"best_bid":"{fixed(best.bid, decimals)}","best_ask":"{fixed(best.ask, decimals)}"'.encode()

        def assemble(items: Sequence[bytes], _: object) -> bytes:
            return b'{"trades":[' + b",".join(items) + b"]," + tail + b"}"

        page = Page([item(trade) for trade in trades], SHAPE, assemble)
        return await self._faults.answer(request, ADVANCED, known(page), product=product_id)

    async def candles(self, request: web.Request) -> web.StreamResponse:
        """Newest first, those that open in the seconds `start` to `end`; none for a span without a trade."""
        product_id = request.match_info["product_id"]
        if product_id not in self._listings:
            return _error(HTTPStatus.NOT_FOUND, "NOT_FOUND", 5, f"product {product_id} not found")
        seconds = GRANULARITIES_S.get(request.query.get("granularity", ""))
        try:
            start_s, end_s = (int(request.query.get(name, "")) for name in ("start", "end"))
        except ValueError:
            return _error(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", 3, "start and end are whole numbers")
        if seconds is None:
            return _error(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", 3, "granularity is not known")
        first_s, last_s = -(-start_s // seconds) * seconds, end_s // seconds * seconds
        if (last_s - first_s) // seconds >= MAX_CANDLES:
            message = (
                f"start and end argument is invalid - number of candles requested should be less than {MAX_CANDLES}"
            )
            return _error(HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT", 3, message)
        found = await self._minutes.read(
            lambda: merged(self._minutes.between(product_id, first_s, last_s + seconds - MINUTE_S), seconds)
        )
        page = Page(
            [candle_item(candle) for candle in reversed(found)],
            CANDLE,
            lambda items, _: b'{"candles":[' + b",".join(items) + b"]}",
        )
        return await self._faults.answer(request, ADVANCED, known(page), product=product_id)

    def _between(self, product_id: str, start_s: int, end_s: int, limit: int) -> list[TruthTrade]:
        """The minutes say which ids may lie in the span; their trades say which do."""
        minutes = self._minutes.between(product_id, start_s - start_s % MINUTE_S, end_s)
        found: list[TruthTrade] = []
        after = minutes[-1].last_id + 1 if minutes else 0
        while minutes and len(found) < limit:
            page = self._history.page(product_id, limit=MAX_LIMIT, after=after, before=minutes[0].first_id - 1)
            found.extend(trade for trade in page if start_s <= trade.event_us // SECOND_US <= end_s)
            if not page or page[-1].event_us // SECOND_US < start_s:
                break
            after = page[-1].trade_id
        return found[:limit]
