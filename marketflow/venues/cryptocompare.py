"""CryptoCompare (now CoinDesk Data), the legacy API: pricemultifull, polled.

Facts, from the documentation (min-api.cryptocompare.com, read 2026), a user's report of its limits, and a page of
2020-01-18 re-keyed to this shape:

- {"RAW": {base: {quote: figures}}, "DISPLAY": …}. RAW's figures are JSON numbers (doubles), identifiers are texts,
  LASTUPDATE is whole seconds. DISPLAY is text for people and is not read.
- Errors come with status 200: {"Response": "Error", "Message", "Type"}; they hold no price and are ignored by name.
- A coin is known by its symbol alone, which is all that the call takes, so asset_id is the symbol as the page has it.
- The free tier ended on 2026-05-21: every call needs a key (`Authorization: Apikey …`). Off unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from urllib.parse import urlencode

from marketflow.contracts.reasons import IGNORED_VENUE_ERROR, Reason
from marketflow.contracts.records import AssetPrice, Ignored, Item, Outcome, Parsed, RejectedItem, Unparseable
from marketflow.contracts.topics import CANDLES, PRICES, Topic
from marketflow.venues.validation import (
    Fields,
    RejectionError,
    fields_of,
    item_of,
    not_text,
    received_us,
    shown,
)

VENUE = "cryptocompare"
CHANNEL = "pricemultifull"
PRICES_PATH = "/pricemultifull"
# a list of symbols has at most 300 characters
MAX_SYMBOLS_TEXT = 300
KEY_HEADER = "authorization"


def topic_of(value: bytes) -> Topic:
    """Prices, unless it is a page of candles."""
    try:
        fields = fields_of(value)
    except RejectionError:
        return PRICES
    try:
        return CANDLES if fields.object("Data").has("Data") else PRICES
    except RejectionError:
        return PRICES


def page_request(symbols: Iterable[str], vs_currencies: Iterable[str]) -> str:
    """Canonical path and sorted query of one call; the same text is the request header."""
    query = {"fsyms": ",".join(symbols), "tsyms": ",".join(one.upper() for one in vs_currencies)}
    return f"{PRICES_PATH}?{urlencode(sorted(query.items()))}"


def parse(headers: Mapping[str, str], value: bytes) -> Outcome:
    """One AssetPrice per base and quote of the page, each accepted or rejected by itself; never raises."""
    try:
        received = received_us(headers)
        unreadable = not_text(value)
        if unreadable is not None:
            return unreadable
        fields = fields_of(value)
        if fields.has("Response") and not fields.has("RAW"):
            return Ignored(IGNORED_VENUE_ERROR if fields.text("Response") == "Error" else "no_prices")
        if not fields.has("RAW"):
            raise RejectionError(Reason.UNEXPECTED_SHAPE, "an object without RAW")
        items: list[Item] = []
        for base, quotes in fields.object("RAW").members():
            try:
                pairs = fields_of(quotes).members()
            except RejectionError as rejection:
                items.append(RejectedItem(rejection.reason, f"RAW.{shown(base)}: {rejection.detail}"))
                continue
            items += [item_of(partial(_asset_price, figures, received)) for _, figures in pairs]
    except RejectionError as rejection:
        return Unparseable(rejection.reason, rejection.detail)
    return Parsed(tuple(items)) if items else Ignored("empty_page")


def _asset_price(figures: bytes, received: int) -> AssetPrice:
    fields = fields_of(figures)
    symbol = fields.text("FROMSYMBOL")
    if not fields.has("PRICE"):
        raise RejectionError(Reason.NULL_PRICE, f"PRICE of {shown(symbol)} is null or missing")
    return AssetPrice(
        source=VENUE,
        asset_id=symbol,
        vs_currency=_currency(fields),
        last_updated_us=fields.seconds_us("LASTUPDATE", received),
        symbol=symbol,
        name=symbol,
        price=fields.positive("PRICE"),
        market_cap=fields.optional_figure("MKTCAP"),
        market_cap_rank=None,
        fully_diluted_valuation=None,
        volume_24h=fields.optional_figure("TOTALVOLUME24HTO"),
        high_24h=fields.optional_figure("HIGH24HOUR"),
        low_24h=fields.optional_figure("LOW24HOUR"),
        change_24h_pct=fields.optional_rounded("CHANGEPCT24HOUR"),
        circulating_supply=fields.optional_figure("CIRCULATINGSUPPLY"),
        total_supply=fields.optional_figure("SUPPLY"),
        max_supply=None,
    )


def _currency(fields: Fields) -> str:
    text = fields.text("TOSYMBOL").lower()
    if not (text.isascii() and text.isalnum()) or len(text) > 16:
        raise RejectionError(Reason.WRONG_TYPE, f"TOSYMBOL {shown(text)} is no currency")
    return text
