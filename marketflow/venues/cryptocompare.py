"""CryptoCompare (now CoinDesk Data), the legacy API: pricemultifull, polled, and histominute.

Facts, from the documentation (min-api.cryptocompare.com, read 2026), a user's report of its limits, and a page of
2020-01-18 re-keyed to this shape:

- {"RAW": {base: {quote: figures}}, "DISPLAY": …}. RAW's figures are JSON numbers (doubles), identifiers are texts,
  LASTUPDATE is whole seconds. DISPLAY is text for people and is not read.
- Errors come with status 200: {"Response": "Error", "Message", "Type"}; they hold no price and are ignored by name.
  Too many calls are told in the same way, with calls_made and max_calls by window and no Retry-After.
- A coin is known by its symbol alone, which is all that the call takes, so asset_id is the symbol as the page has it.
- histominute is {"Response": "Success", "Data": {"Data": [candles]}}, oldest first, of seven days at most. A candle's
  `time` is whole seconds, `volumefrom` of the base, `volumeto` of the quote, all doubles. Neither coin nor currency is
  said, so header product_id does, and header interval where the call aggregated minutes. The last candle is open.
- The free tier ended on 2026-05-21: every call needs a key (`Authorization: Apikey …`). Off unless it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from urllib.parse import urlencode

import msgspec

from marketflow.contracts.reasons import IGNORED_VENUE_ERROR, Reason
from marketflow.contracts.records import AssetPrice, Candle, Ignored, Item, Outcome, Parsed, RejectedItem
from marketflow.contracts.topics import CANDLES, PRICES, Topic
from marketflow.venues import candles, messages
from marketflow.venues.page_currency import refused_if_another
from marketflow.venues.validation import (
    Fields,
    RejectionError,
    fields_of,
    item_of,
    shown,
)

VENUE = "cryptocompare"
CHANNEL = "pricemultifull"
CANDLES_CHANNEL = "histominute"
PRICES_PATH = "/pricemultifull"
# a list of symbols has at most 300 characters, a list of currencies 100
MAX_SYMBOLS_TEXT = 300
MAX_CURRENCIES_TEXT = 100
# how long each window of calls lasts, and what to wait where the answer does not say which is full
WINDOWS_S = {"second": 1.0, "minute": 60.0, "hour": 3_600.0, "day": 86_400.0, "month": 30 * 86_400.0}
UNSAID_WAIT_S = 60.0
KEY_HEADER = "authorization"


def topic_of(value: bytes) -> Topic:
    """Prices, unless it is a page of candles."""
    try:
        return PRICES if _history(fields_of(value)) is None else CANDLES
    except RejectionError:
        return PRICES


def _history(fields: Fields) -> Fields | None:
    """What holds the candles of a page of history; None of any other answer."""
    try:
        inner = fields.object("Data")
    except RejectionError:
        return None
    return inner if inner.has("Data") else None


def page_request(symbols: Iterable[str], vs_currencies: Iterable[str]) -> str:
    """Canonical path and sorted query of one call; the same text is the request header."""
    query = {"fsyms": ",".join(symbols), "tsyms": ",".join(one.upper() for one in vs_currencies)}
    return f"{PRICES_PATH}?{urlencode(sorted(query.items()))}"


def asks_to_wait_s(value: bytes) -> float | None:
    """The longest window that an error with status 200 says is full; None where it is no word about too many calls."""
    if b"rate limit" not in value.lower():
        return None
    try:
        fields = fields_of(value)
        if fields.has("RAW"):
            return None
        limits = fields.object("RateLimit")
        made, most = limits.object("calls_made"), limits.object("max_calls")
        full = [
            seconds
            for name, seconds in WINDOWS_S.items()
            if made.has(name) and most.has(name) and made.integer(name) >= most.integer(name)
        ]
    except RejectionError:
        return UNSAID_WAIT_S
    return max(full, default=UNSAID_WAIT_S)


@messages.parser
def parse(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """Prices or candles of a page, each accepted or rejected by itself; never raises."""
    fields = fields_of(value)
    if fields.has("Response") and not fields.has("RAW"):
        return _without_prices(fields, headers, received)
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
    return Parsed(refused_if_another(VENUE, tuple(items))) if items else Ignored("empty_page")


def _without_prices(fields: Fields, headers: Mapping[str, str], received: int) -> Outcome:
    """An error, a page of history, or an answer that holds neither."""
    if fields.text("Response") == "Error":
        return Ignored(IGNORED_VENUE_ERROR)
    history = _history(fields)
    if history is None:
        return Ignored("no_prices")
    page = candles.page_of(headers, VENUE, received, default_interval="1m")
    return candles.parsed(page, history.elements("Data"), _candle)


def _candle(page: candles.Page, element: msgspec.Raw) -> Candle:
    fields = fields_of(element)
    open_us = candles.closed(page, fields.seconds_us("time", page.received))
    return candles.candle(
        page,
        open_us,
        fields,
        volume=candles.total("volumefrom", fields.optional_rounded("volumefrom")),
        notional=candles.optional_total("volumeto", fields.optional_rounded("volumeto")),
    )


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
