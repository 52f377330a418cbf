"""Coinbase Exchange REST: products, trades paged backwards through all that was ever traded here, and candles."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus

import msgspec
from aiohttp import web

from marketflow.contracts.products import PRODUCTS
from marketflow.simulator.coinbase_wire import MAKER_SIDE
from marketflow.simulator.faults import COINBASE
from marketflow.simulator.history import TradeHistory
from marketflow.simulator.http_faults import HttpFaults, json_answer, known
from marketflow.simulator.minutes import MINUTE_S, Candle, Minutes, merged
from marketflow.simulator.page_faults import RFC3339_US, SECONDS, ItemShape, Page, whole
from marketflow.simulator.texts import rfc3339_us
from marketflow.simulator.truth import TruthTrade

MAX_LIMIT = 1000
MAX_CANDLES = 300
GRANULARITIES = ("60", "300", "900", "3600", "21600", "86400")
TRADE = ItemShape(price="price", size="size", time="time", clock=RFC3339_US, is_trade=True)
CANDLE = ItemShape(price=4, size=5, time=0, clock=SECONDS)


def item(trade: TruthTrade) -> dict[str, object]:
    """One trade as REST tells it: eight decimals, the maker's side."""
    return {
        "time": rfc3339_us(trade.event_us),
        "trade_id": trade.trade_id,
        "price": f"{Decimal(trade.price):.8f}",
        "size": f"{Decimal(trade.size):.8f}",
        "side": MAKER_SIDE[trade.taker_side],
    }


def row(candle: Candle) -> bytes:
    """One candle: time, low, high, open, close, volume, all numbers."""
    amounts = (candle.low, candle.high, candle.open, candle.close, candle.volume)
    return f"[{candle.start_s},{','.join(f'{amount.normalize():f}' for amount in amounts)}]".encode()


def _moment_s(text: str) -> float:
    """Seconds since the epoch, or an ISO time, UTC where it has no zone; ValueError where it is neither."""
    if text.isascii() and text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class CoinbaseRest:
    """Handlers under /coinbase_exchange: the books that this exchange owns."""

    def __init__(self, history: TradeHistory, minutes: Minutes, faults: HttpFaults) -> None:
        self._history = history
        self._minutes = minutes
        self._faults = faults
        self._listings = {name: entry for name, entry in history.listings.items() if entry.venue == COINBASE}

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        return [
            web.get("/coinbase_exchange/products", self.products),
            web.get("/coinbase_exchange/currencies", self.currencies),
            web.get("/coinbase_exchange/products/{product_id}/trades", self.trades),
            web.get("/coinbase_exchange/products/{product_id}/candles", self.candles),
        ]

    async def products(self, request: web.Request) -> web.StreamResponse:
        """What is listed."""
        listed = [
            {
                "id": listing.product_id,
                "base_currency": PRODUCTS[listing.product_id].base,
                "quote_currency": PRODUCTS[listing.product_id].quote,
                "quote_increment": str(Decimal(1).scaleb(-listing.price_decimals)),
                "base_increment": "0.00000001",
                "display_name": listing.product_id.replace("-", "/"),
                "status": "online",
                "trading_disabled": False,
            }
            for listing in self._listings.values()
        ]
        return await self._faults.answer(request, COINBASE, known(whole(msgspec.json.encode(listed))))

    async def currencies(self, request: web.Request) -> web.StreamResponse:
        """What the listed products are made of."""
        listed = [PRODUCTS[product_id] for product_id in self._listings]
        names = sorted({name for product in listed for name in (product.base, product.quote)})
        told = [{"id": name, "name": name, "min_size": "0.00000001", "status": "online"} for name in names]
        return await self._faults.answer(request, COINBASE, known(whole(msgspec.json.encode(told))))

    async def trades(self, request: web.Request) -> web.StreamResponse:
        """Newest first; `after=N` continues with older ids than N, `before=N` stops above N."""
        product_id = request.match_info["product_id"]
        if product_id not in self._listings:
            return json_answer({"message": "NotFound"}, HTTPStatus.NOT_FOUND)
        try:
            limit = int(request.query.get("limit", MAX_LIMIT))
            cursors = {name: int(request.query[name]) for name in ("after", "before") if name in request.query}
        except ValueError:
            return json_answer({"message": "Invalid limit or cursor"}, HTTPStatus.BAD_REQUEST)
        if not 1 <= limit <= MAX_LIMIT:
            return json_answer({"message": f"Invalid limit: 1 to {MAX_LIMIT}"}, HTTPStatus.BAD_REQUEST)
        page = self._history.page(product_id, limit=limit, after=cursors.get("after"), before=cursors.get("before"))
        headers = {"CB-BEFORE": str(page[0].trade_id), "CB-AFTER": str(page[-1].trade_id)} if page else {}
        told = Page([msgspec.json.encode(item(trade)) for trade in page], TRADE)
        return await self._faults.answer(request, COINBASE, known(told), headers=headers, product=product_id)

    async def candles(self, request: web.Request) -> web.StreamResponse:
        """Newest first, none for a span without a trade; without both `start` and `end` the newest 300 spans."""
        product_id = request.match_info["product_id"]
        if product_id not in self._listings:
            return json_answer({"message": "NotFound"}, HTTPStatus.NOT_FOUND)
        granularity = request.query.get("granularity", GRANULARITIES[0])
        if granularity not in GRANULARITIES:
            return json_answer({"message": "Unsupported granularity"}, HTTPStatus.BAD_REQUEST)
        seconds, end_s = int(granularity), float(int(time.time()))
        start_s = end_s - MAX_CANDLES * seconds
        if "start" in request.query and "end" in request.query:
            try:
                start_s, end_s = (_moment_s(request.query[name]) for name in ("start", "end"))
            except ValueError:
                return json_answer({"message": "Invalid start or end"}, HTTPStatus.BAD_REQUEST)
        if end_s - start_s > MAX_CANDLES * seconds:
            text = f"Count of aggregations requested exceeds {MAX_CANDLES}"
            message = f"granularity too small for the requested time range. {text}"
            return json_answer({"message": message}, HTTPStatus.BAD_REQUEST)
        first_s, last_s = (int(moment_s) - int(moment_s) % seconds for moment_s in (start_s, end_s))
        minutes = await self._minutes.read(
            lambda: merged(self._minutes.between(product_id, first_s, last_s + seconds - MINUTE_S), seconds)
        )
        page = Page([row(candle) for candle in minutes[: -MAX_CANDLES - 1 : -1]], CANDLE)
        return await self._faults.answer(request, COINBASE, known(page), product=product_id)
