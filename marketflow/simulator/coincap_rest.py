"""CoinCap v3's `/assets`: decimal texts in usd, one time for the whole page."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from marketflow.simulator.assets import AssetMarket, Quotation, converted, other_currency
from marketflow.simulator.coingecko_wire import turnover
from marketflow.simulator.faults import COINCAP
from marketflow.simulator.http_faults import HttpFaults, json_answer
from marketflow.simulator.page_facts import PageFacts
from marketflow.simulator.page_faults import MILLISECONDS, ItemShape, Page
from marketflow.simulator.truth import TruthPrice

MAX_LIMIT = 2000
DEFAULT_LIMIT = 100
USD = "usd"
SHAPE = ItemShape(price="priceUsd", clock=MILLISECONDS)


def sixteen(amount: Decimal | float | str) -> str:
    """A decimal text as the venue writes it."""
    return f"{Decimal(amount):.16f}"


def item(quotation: Quotation, rank: int) -> bytes:
    """One asset; it has no time of its own."""
    coin, day, price = quotation.coin, quotation.day, Decimal(quotation.price)
    return msgspec.json.encode(
        {
            "id": coin.id,
            "rank": str(rank),
            "symbol": coin.symbol.upper(),
            "name": coin.name,
            "supply": sixteen(quotation.supply),
            "maxSupply": sixteen(coin.max_supply) if coin.max_supply else None,
            "marketCapUsd": sixteen(quotation.market_cap),
            "volumeUsd24Hr": sixteen(turnover(quotation)),
            "priceUsd": sixteen(price),
            "changePercent24Hr": sixteen(100 * (price / Decimal(day.open) - 1)),
            "vwap24Hr": sixteen((day.high + day.low) / 2),
            "explorer": None,
        }
    )


def fact(quotation: Quotation, moment_us: int) -> TruthPrice:
    """What the page makes true of an asset: its figures as told, at the page's time."""
    return TruthPrice(
        source=COINCAP,
        asset_id=quotation.asset_id,
        vs_currency=USD,
        price=sixteen(quotation.price),
        market_cap=sixteen(quotation.market_cap),
        last_updated_us=moment_us,
    )


def body(items: Sequence[bytes], timestamp: Any) -> bytes:
    """The page as sent."""
    return b'{"data":[' + b",".join(items) + b'],"timestamp":' + msgspec.json.encode(timestamp) + b"}"


class CoinCapRest:
    """Handlers under /coincap/v3."""

    def __init__(self, assets: AssetMarket, facts: PageFacts, faults: HttpFaults, *, key_required: bool) -> None:
        self._assets, self._facts, self._faults = assets, facts, faults
        self._key_required = key_required
        # pages of one millisecond are cut from one ranking
        self._moment_us = 0
        self._ranked: list[tuple[int, Quotation]] = []

    def routes(self) -> list[web.RouteDef]:
        """The venue's paths."""
        return [web.get("/coincap/v3/assets", self.assets)]

    async def assets(self, request: web.Request) -> web.StreamResponse:
        """One page of assets, the largest first."""
        keyed = request.headers.get("authorization", "").startswith("Bearer ") or "apiKey" in request.query
        if self._key_required and not keyed:
            return json_answer({"error": "Unauthorized: an API key is needed"}, HTTPStatus.UNAUTHORIZED)
        for name, least in (("limit", 1), ("offset", 0)):
            text = request.query.get(name, "1")
            if not (text.isascii() and text.isdigit()) or not least <= int(text) < 10**9:
                return json_answer({"error": f"invalid {name}"}, HTTPStatus.BAD_REQUEST)
        if int(request.query.get("limit", DEFAULT_LIMIT)) > MAX_LIMIT:
            return json_answer({"error": f"limit exceeds {MAX_LIMIT}"}, HTTPStatus.BAD_REQUEST)
        return await self._faults.answer(
            request, COINCAP, lambda switched: self._page(request, switched), has_currency=True
        )

    async def _page(self, request: web.Request, switched: bool) -> Page:
        moment_us = self._facts.moment_us(COINCAP)
        chosen = self._chosen(request, moment_us)
        await self._facts.tell(fact(quotation, moment_us) for _, quotation in chosen)
        told = [(rank, other_currency(quotation) if switched else quotation) for rank, quotation in chosen]
        return Page([item(quotation, rank) for rank, quotation in told], SHAPE, body, moment=moment_us // 1000)

    def _chosen(self, request: web.Request, moment_us: int) -> list[tuple[int, Quotation]]:
        if moment_us != self._moment_us:
            self._moment_us, self._ranked = moment_us, self._ranking()
        ids, search = request.query.get("ids"), request.query.get("search", "").lower()
        wanted = set(ids.split(",")) if ids else None
        offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", DEFAULT_LIMIT))
        found = [
            (rank, quotation)
            for rank, quotation in self._ranked
            if (wanted is None or quotation.asset_id in wanted)
            and (search in quotation.asset_id or search in quotation.coin.symbol)
        ]
        return found[offset : offset + limit]

    def _ranking(self) -> list[tuple[int, Quotation]]:
        """All assets in usd, whatever the currencies that the other aggregator quotes."""
        source = USD if USD in self._assets.currencies else self._assets.currencies[0]
        quotations = [
            quotation if source == USD else converted(quotation, USD)._replace(vs_currency=USD)
            for (_, currency), quotation in self._assets.published.items()
            if currency == source
        ]
        quotations.sort(key=lambda quotation: -int(quotation.market_cap))
        return list(enumerate(quotations, 1))
