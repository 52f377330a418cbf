"""CoinGecko: pages of /coins/markets, polled.

Facts, from CoinGecko's OpenAPI files and its page on errors and rate limits (read 2026), checked against captures of
2022-01 and 2024-04 (tests/fixtures/captures):

- A page is an array of at most 250 coins. Figures are JSON numbers, integers and fractions mixed in one field, or null.
  They are read from the text, so that 1e-8 and 0.1 stay exact.
- `id` identifies a coin; `symbol` does not (symbols collide).
- `last_updated` often stays the same between polls: the pair of id and last_updated is the observation.
- The quote currency is only in the query, so it comes from the header `vs_currency` or the header `request`.
- An error may be an object where an array is promised, and 429 comes with Retry-After and a JSON body.
- `precision=18` gives prices with up to 18 decimals; without it a bitcoin is rounded to whole dollars.
- Whether a page asked in usd is in usd is told by its stable coins (docs/decisions/0009-page-currency.md).
- Keys: demo plan header `x-cg-demo-api-key` on the public host, paid plans `x-cg-pro-api-key` on the pro host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from urllib.parse import parse_qs, urlencode, urlsplit

import msgspec

from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Ignored, Outcome, Parsed
from marketflow.contracts.topics import PRICES, Topic
from marketflow.venues import messages
from marketflow.venues.page_currency import refused_if_another
from marketflow.venues.validation import (
    INT32_MAX,
    RejectionError,
    elements_of,
    fields_of,
    item_of,
)

VENUE = "coingecko"
CHANNEL = "markets"
MARKETS_PATH = "/coins/markets"
MAX_PER_PAGE = 250
DEMO_KEY_HEADER = "x-cg-demo-api-key"
PAID_KEY_HEADER = "x-cg-pro-api-key"


def topic_of(value: bytes) -> Topic:
    """Every page goes to the prices' topic, whatever it holds."""
    return PRICES


def pages_per_currency(assets: int) -> tuple[int, int]:
    """How many pages, and how many assets on each, bring at least `assets`: 300 is two pages of 150."""
    pages = math.ceil(assets / MAX_PER_PAGE)
    return pages, math.ceil(assets / pages)


def page_request(vs_currency: str, page: int, per_page: int) -> str:
    """Canonical path and sorted query of one page; the same text is the request header."""
    query = {
        "order": "market_cap_desc",
        "page": str(page),
        "per_page": str(per_page),
        "precision": "18",
        "vs_currency": vs_currency,
    }
    return f"{MARKETS_PATH}?{urlencode(sorted(query.items()))}"


@messages.parser
def parse(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """One AssetPrice per coin of the page, each accepted or rejected by itself; never raises."""
    elements = elements_of(value)
    if not elements:
        return Ignored("empty_page")
    vs_currency = _vs_currency(headers)
    items = tuple(item_of(partial(_asset_price, element, vs_currency, received)) for element in elements)
    return Parsed(refused_if_another(VENUE, items))


def _vs_currency(headers: Mapping[str, str]) -> str:
    """The page's quote currency, lower case, from its own header or from the request's query."""
    asked = headers.get("vs_currency")
    if not asked:
        try:
            query = parse_qs(urlsplit(headers.get("request") or "").query)
        except ValueError as error:
            raise RejectionError(
                Reason.BAD_HEADERS, f"header request is no request: {ascii(str(error))[:120]}"
            ) from None
        asked = (query.get("vs_currency") or [""])[0]
    currency = asked.strip().lower()
    if not currency.isalnum() or len(currency) > 16:
        raise RejectionError(
            Reason.BAD_HEADERS, "neither header vs_currency nor request says the page's quote currency"
        )
    return currency


def _asset_price(element: msgspec.Raw, vs_currency: str, received: int) -> AssetPrice:
    fields = fields_of(element)
    asset_id = fields.text("id")
    if not fields.has("current_price"):
        raise RejectionError(Reason.NULL_PRICE, f"current_price of {ascii(asset_id)[:80]} is null or missing")
    return AssetPrice(
        source=VENUE,
        asset_id=asset_id,
        vs_currency=vs_currency,
        last_updated_us=fields.time_us("last_updated", received),
        symbol=fields.text("symbol"),
        name=fields.text("name"),
        price=fields.positive("current_price"),
        market_cap=fields.optional_figure("market_cap"),
        market_cap_rank=fields.optional_integer("market_cap_rank", INT32_MAX),
        fully_diluted_valuation=fields.optional_figure("fully_diluted_valuation"),
        volume_24h=fields.optional_figure("total_volume"),
        high_24h=fields.optional_figure("high_24h"),
        low_24h=fields.optional_figure("low_24h"),
        change_24h_pct=fields.optional_number("price_change_percentage_24h"),
        circulating_supply=fields.optional_figure("circulating_supply"),
        total_supply=fields.optional_figure("total_supply"),
        max_supply=fields.optional_figure("max_supply"),
    )
