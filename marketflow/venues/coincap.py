"""CoinCap v3: pages of /assets, polled.

Facts, from CoinCap's documentation (rest.coincap.io, read 2026), checked against a page of v2 of 2019-01-21, whose
shape v3 kept:

- {"data": [assets], "timestamp": milliseconds}. Figures are texts with 16 and more fraction digits, or null; `rank` is
  a text or an integer. All prices are in usd.
- An asset has no time of its own: the page's timestamp is when its prices held.
- `id` identifies an asset (`bitcoin`); symbols collide. At most 2,000 assets a page.
- A key is needed (`Authorization: Bearer …`); the free plan has 2,500 credits a month, one a call and more for large
  pages. v2, which needed none, was shut down on 2025-03-31.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlencode

import msgspec

from marketflow.contracts.reasons import IGNORED_VENUE_ERROR, Reason
from marketflow.contracts.records import AssetPrice, Ignored, Outcome, Parsed
from marketflow.contracts.topics import PRICES, Topic
from marketflow.venues import messages
from marketflow.venues.page_currency import refused_if_another
from marketflow.venues.validation import (
    INT32_MAX,
    Fields,
    RejectionError,
    fields_of,
    item_of,
    shown,
)

VENUE = "coincap"
CHANNEL = "assets"
ASSETS_PATH = "/assets"
MAX_PER_PAGE = 2_000
KEY_HEADER = "authorization"
VS_CURRENCY = "usd"


def topic_of(value: bytes) -> Topic:
    """Every page goes to the prices' topic, whatever it holds."""
    return PRICES


def page_request(page: int, per_page: int) -> str:
    """Canonical path and sorted query of one page, from 1; the same text is the request header."""
    query = {"limit": str(per_page), "offset": str((page - 1) * per_page)}
    return f"{ASSETS_PATH}?{urlencode(sorted(query.items()))}"


@messages.parser
def parse(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """One AssetPrice per asset of the page, each accepted or rejected by itself; never raises."""
    fields = fields_of(value)
    if not fields.has("data") and fields.has("error"):
        return Ignored(IGNORED_VENUE_ERROR)
    if not fields.has("data"):
        raise RejectionError(Reason.UNEXPECTED_SHAPE, "an object without data")
    elements = fields.elements("data")
    if not elements:
        return Ignored("empty_page")
    last_updated = fields.epoch_us("timestamp", received)
    items = tuple(item_of(partial(_asset_price, element, last_updated)) for element in elements)
    return Parsed(refused_if_another(VENUE, items))


def _asset_price(element: msgspec.Raw, last_updated: int) -> AssetPrice:
    fields = fields_of(element)
    asset_id = fields.text("id")
    if not fields.has("priceUsd"):
        raise RejectionError(Reason.NULL_PRICE, f"priceUsd of {shown(asset_id)} is null or missing")
    return AssetPrice(
        source=VENUE,
        asset_id=asset_id,
        vs_currency=VS_CURRENCY,
        last_updated_us=last_updated,
        symbol=fields.text("symbol"),
        name=fields.text("name"),
        price=fields.positive("priceUsd"),
        market_cap=fields.optional_figure("marketCapUsd"),
        market_cap_rank=_rank(fields),
        fully_diluted_valuation=None,
        volume_24h=fields.optional_figure("volumeUsd24Hr"),
        high_24h=None,
        low_24h=None,
        change_24h_pct=fields.optional_number("changePercent24Hr"),
        circulating_supply=fields.optional_figure("supply"),
        total_supply=None,
        max_supply=fields.optional_figure("maxSupply"),
    )


def _rank(fields: Fields) -> int | None:
    """A whole number, as a number or as a text."""
    rank = fields.optional_figure("rank")
    if rank is not None and (rank != int(rank) or rank > INT32_MAX):
        raise RejectionError(Reason.OUT_OF_RANGE, f"rank {rank} is no whole number within {INT32_MAX}")
    return None if rank is None else int(rank)
