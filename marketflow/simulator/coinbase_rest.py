"""Coinbase Exchange REST: products, and trades paged backwards through all that was ever traded here."""

from __future__ import annotations

from decimal import Decimal
from http import HTTPStatus

import msgspec
from aiohttp import web

from marketflow.contracts.products import PRODUCTS
from marketflow.simulator.coinbase_wire import MAKER_SIDE
from marketflow.simulator.faults import COINBASE
from marketflow.simulator.history import TradeHistory
from marketflow.simulator.http_faults import HttpFaults, json_answer
from marketflow.simulator.texts import rfc3339_us
from marketflow.simulator.truth import TruthTrade

MAX_LIMIT = 1000


def item(trade: TruthTrade) -> dict[str, object]:
    """One trade as REST tells it: eight decimals, the maker's side."""
    return {
        "time": rfc3339_us(trade.event_us),
        "trade_id": trade.trade_id,
        "price": f"{Decimal(trade.price):.8f}",
        "size": f"{Decimal(trade.size):.8f}",
        "side": MAKER_SIDE[trade.taker_side],
    }


class CoinbaseRest:
    """Handlers under /coinbase_exchange."""

    def __init__(self, history: TradeHistory, faults: HttpFaults) -> None:
        self._history = history
        self._faults = faults

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        return [
            web.get("/coinbase_exchange/products", self.products),
            web.get("/coinbase_exchange/products/{product_id}/trades", self.trades),
        ]

    async def products(self, request: web.Request) -> web.Response:
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
            for listing in self._history.listings.values()
        ]
        return await self._faults.answer(request, COINBASE, lambda: msgspec.json.encode(listed))

    async def trades(self, request: web.Request) -> web.Response:
        """Newest first; `after=N` continues with older ids than N, `before=N` stops above N."""
        product_id = request.match_info["product_id"]
        if product_id not in self._history.listings:
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
        return await self._faults.answer(
            request, COINBASE, lambda: msgspec.json.encode([item(trade) for trade in page]), headers
        )
