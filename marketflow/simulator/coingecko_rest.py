"""CoinGecko's `/coins/markets`: paged, with a key or within the keyless limit, with the error bodies it really has."""

from __future__ import annotations

from http import HTTPStatus

from aiohttp import web

from marketflow.simulator.assets import AssetMarket, Quotation, other_currency
from marketflow.simulator.coingecko_wire import ORDERS, Pages
from marketflow.simulator.faults import COINGECKO
from marketflow.simulator.http_faults import HttpFaults, json_answer, known, rate_limited
from marketflow.simulator.limits import CallLimit
from marketflow.simulator.page_faults import RFC3339_MS, ItemShape, Page, whole

KEY_NAMES = ("x-cg-demo-api-key", "x-cg-pro-api-key", "x_cg_demo_api_key", "x_cg_pro_api_key")
MAX_PER_PAGE = 250
PING = whole(b'{"gecko_says":"(V3) To the Moon!"}')
SHAPE = ItemShape(price="current_price", time="last_updated", clock=RFC3339_MS)


class CoinGeckoRest:
    """Handlers under /coingecko/api/v3."""

    def __init__(self, assets: AssetMarket, faults: HttpFaults, keyless_calls_per_minute: int) -> None:
        self._assets = assets
        self._faults = faults
        self._limit = CallLimit(keyless_calls_per_minute)
        self._pages = Pages()

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        return [
            web.get("/coingecko/api/v3/ping", self.ping),
            web.get("/coingecko/api/v3/coins/markets", self.markets),
        ]

    async def ping(self, request: web.Request) -> web.StreamResponse:
        """The venue's sign of life."""
        return await self._faults.answer(request, COINGECKO, known(PING))

    async def markets(self, request: web.Request) -> web.StreamResponse:
        """One page of coins in one currency."""
        keyed = any(name in request.headers or name in request.query for name in KEY_NAMES)
        retry_after_s = 0 if keyed else self._limit.retry_after_s()
        if retry_after_s:
            return rate_limited(COINGECKO, retry_after_s)
        refusal = self._refusal(request)
        if refusal:
            return json_answer({"error": refusal}, HTTPStatus.UNPROCESSABLE_ENTITY)
        return await self._faults.answer(
            request, COINGECKO, lambda switched: self._page(request, switched), has_currency=True
        )

    async def _page(self, request: web.Request, switched: bool) -> Page:
        chosen = self._chosen(request)
        # items of the good page are encoded once a refresh; those that lie are not kept
        pages = Pages() if switched else self._pages
        items = pages.page(
            [other_currency(quotation) for quotation in chosen] if switched else chosen,
            order=request.query.get("order", "market_cap_desc"),
            per_page=int(request.query.get("per_page", 100)),
            page=int(request.query.get("page", 1)),
        )
        return Page(items, SHAPE)

    def _refusal(self, request: web.Request) -> str:
        currency = request.query.get("vs_currency")
        if not currency:
            return "Missing parameter vs_currency"
        if currency not in self._assets.currencies:
            return "invalid vs_currency"
        if request.query.get("order", "market_cap_desc") not in ORDERS:
            return "invalid order"
        for name, most in (("per_page", MAX_PER_PAGE), ("page", 1_000_000)):
            text = request.query.get(name, "1")
            if not text.isdecimal() or not 1 <= int(text) <= most:
                return f"invalid {name}: 1 to {most}"
        return ""

    def _chosen(self, request: web.Request) -> list[Quotation]:
        currency, ids = request.query["vs_currency"], request.query.get("ids")
        wanted = set(ids.split(",")) if ids else None
        return [
            quotation
            for (asset_id, vs_currency), quotation in self._assets.published.items()
            if vs_currency == currency and (wanted is None or asset_id in wanted)
        ]
