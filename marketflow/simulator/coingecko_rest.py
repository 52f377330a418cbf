"""CoinGecko's `/coins/markets`: paged, with a key or within the keyless limit, with the error bodies it really has."""

from __future__ import annotations

import time
from collections import deque
from http import HTTPStatus

import msgspec
from aiohttp import web

from marketflow.simulator.assets import AssetMarket, Quotation
from marketflow.simulator.bad_messages import bad_copy
from marketflow.simulator.coingecko_wire import ORDERS, Pages, body
from marketflow.simulator.faults import COINGECKO, MESSAGE_FAULTS, FaultKind
from marketflow.simulator.http_faults import HttpFaults, json_answer, rate_limited

KEY_NAMES = ("x-cg-demo-api-key", "x-cg-pro-api-key", "x_cg_demo_api_key", "x_cg_pro_api_key")
MAX_PER_PAGE = 250
MINUTE_S = 60.0
# A page cannot come twice or out of order: it is an answer. Those two and drops are the feed's.
PAGE_FAULTS = MESSAGE_FAULTS - {FaultKind.DROP, FaultKind.REORDER}
# These take the page's place, since one request has one answer; all others are an extra item at the page's end.
WHOLE_BODY = (FaultKind.MALFORMED, FaultKind.TRUNCATED, FaultKind.ERROR_OBJECT)


class KeylessLimit:
    """Calls of the last minute; 0 allowed means no limit."""

    def __init__(self, calls_per_minute: int) -> None:
        self._allowed = calls_per_minute
        self._calls: deque[float] = deque()

    def retry_after_s(self) -> int:
        """0 where this call is allowed, and counted; else how long to wait."""
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - MINUTE_S:
            self._calls.popleft()
        if self._allowed and len(self._calls) >= self._allowed:
            return int(self._calls[0] + MINUTE_S - now) + 1
        self._calls.append(now)
        return 0


class CoinGeckoRest:
    """Handlers under /coingecko/api/v3."""

    def __init__(self, assets: AssetMarket, faults: HttpFaults, keyless_calls_per_minute: int) -> None:
        self._assets = assets
        self._faults = faults
        self._limit = KeylessLimit(keyless_calls_per_minute)
        self._pages = Pages()

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        return [
            web.get("/coingecko/api/v3/ping", self.ping),
            web.get("/coingecko/api/v3/coins/markets", self.markets),
        ]

    async def ping(self, request: web.Request) -> web.Response:
        """The venue's sign of life."""
        return await self._faults.answer(request, COINGECKO, lambda: b'{"gecko_says":"(V3) To the Moon!"}')

    async def markets(self, request: web.Request) -> web.Response:
        """One page of coins in one currency."""
        keyed = any(name in request.headers or name in request.query for name in KEY_NAMES)
        retry_after_s = 0 if keyed else self._limit.retry_after_s()
        if retry_after_s:
            return rate_limited(retry_after_s)
        refusal = self._refusal(request)
        if refusal:
            return json_answer({"error": refusal}, HTTPStatus.UNPROCESSABLE_ENTITY)
        items = self._pages.page(
            self._chosen(request),
            order=request.query.get("order", "market_cap_desc"),
            per_page=int(request.query.get("per_page", 100)),
            page=int(request.query.get("page", 1)),
        )
        return await self._faults.answer(request, COINGECKO, lambda: self._body(items))

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

    def _body(self, items: list[bytes]) -> bytes:
        """The page with whatever bad items are due, made from copies of its first."""
        box = self._faults.box
        if box.is_idle or not items:
            return body(items)
        kinds = sorted(hit.fault for hit in box.take(COINGECKO, PAGE_FAULTS, time.time_ns() // 1000))
        extra = [bad_copy(kind, items[0]) for kind in kinds if kind not in WHOLE_BODY]
        page = body([*items, *extra])
        for kind in kinds:
            if kind is FaultKind.ERROR_OBJECT:
                page = msgspec.json.encode({"status": 500, "error": "Internal Server Error"})
            elif kind in WHOLE_BODY:
                page = bad_copy(kind, page)
        return page
