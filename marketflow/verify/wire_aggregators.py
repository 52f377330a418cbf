"""The judge's reading of the aggregators' pages: CoinGecko, CoinCap, CryptoCompare."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from marketflow.contracts.stable_coins import NEAR_A_DOLLAR, PEGGED_TO_USD, SAME_WORD
from marketflow.verify import wire_candles
from marketflow.verify.wire_items import Item, Message, items, lacks_poll, refused
from marketflow.verify.wire_values import (
    INT32,
    Body,
    NoRow,
    Written,
    figure,
    integer,
    list_of,
    number,
    object_of,
    optional,
    positive,
    rounded,
    text,
    ticks,
    time,
)

_COINGECKO = {
    "market_cap": "market_cap",
    "fully_diluted_valuation": "fully_diluted_valuation",
    "volume_24h": "total_volume",
    "high_24h": "high_24h",
    "low_24h": "low_24h",
    "circulating_supply": "circulating_supply",
    "total_supply": "total_supply",
    "max_supply": "max_supply",
}
_COINCAP = {
    "market_cap": "marketCapUsd",
    "volume_24h": "volumeUsd24Hr",
    "circulating_supply": "supply",
    "max_supply": "maxSupply",
}
_CRYPTOCOMPARE = {
    "market_cap": "MKTCAP",
    "volume_24h": "TOTALVOLUME24HTO",
    "high_24h": "HIGH24HOUR",
    "low_24h": "LOW24HOUR",
    "circulating_supply": "CIRCULATINGSUPPLY",
    "total_supply": "SUPPLY",
}


def in_dollars(message: Message, found: list[Item]) -> list[Item]:
    """The items; every one refused where the page's dollar coins deny that its dollars are dollars.

    They deny it where each lies more than 3 % off and any two of them lie within 0.5 % of each other.
    """
    pegged = PEGGED_TO_USD[str(message.venue)]
    worth = [
        one.fields["price"]
        for one in found
        if one.kind != "refused" and one.fields["vs_currency"] == "usd" and one.fields["asset_id"] in pegged
    ]
    off = [price for price in worth if price < 1 - NEAR_A_DOLLAR or price > 1 + NEAR_A_DOLLAR]
    agreed = any(max(pair) - min(pair) <= min(pair) * SAME_WORD for pair in combinations(off, 2))
    if len(off) < len(worth) or not agreed:
        return found
    return [one if one.kind == "refused" else refused(one.index, "another currency's page") for one in found]


def read_coingecko(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """A page of /coins/markets."""
    if not message.vs_currency or lacks_poll(message):
        return [refused(-1, "headers of the poll are missing")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    return in_dollars(message, items("asset_prices", body, lambda one: _coingecko(object_of(one), message)))


def _coingecko(body: Body, message: Message) -> dict[str, Any]:
    change = "price_change_percentage_24h"
    return {
        "source": message.venue,
        "asset_id": text(body, "id"),
        "vs_currency": str(message.vs_currency).lower(),
        "last_updated": time(body, "last_updated", message.received_at),
        "symbol": text(body, "symbol"),
        "name": text(body, "name"),
        "price": positive(body, "current_price"),
        "market_cap_rank": optional(body, "market_cap_rank", lambda: integer(body, "market_cap_rank", INT32)),
        "change_24h_pct": optional(body, change, lambda: number(body, change)),
        **{name: figure(body, field) for name, field in _COINGECKO.items()},
    }


def read_coincap(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """A page of /assets, whose time is the page's."""
    if not isinstance(body, dict):
        return [refused(-1, "not an object")]
    if body.get("data") is None and body.get("error") is not None:
        return []
    try:
        elements = list_of(body, "data")
        at = ticks(body, "timestamp", message.received_at) if elements else 0
    except NoRow as error:
        return [refused(-1, str(error))]
    if elements and lacks_poll(message):
        return [refused(-1, "headers of the poll are missing")]
    return in_dollars(message, items("asset_prices", elements, lambda one: _coincap(object_of(one), at, message)))


def _coincap(body: Body, at: int, message: Message) -> dict[str, Any]:
    change = "changePercent24Hr"
    rank = figure(body, "rank")
    if rank is not None and (rank != int(rank) or rank > INT32):
        raise NoRow(f"rank {rank}")
    return {
        "source": message.venue,
        "asset_id": text(body, "id"),
        "vs_currency": "usd",
        "last_updated": at,
        "symbol": text(body, "symbol"),
        "name": text(body, "name"),
        "price": positive(body, "priceUsd"),
        "market_cap_rank": None if rank is None else int(rank),
        "change_24h_pct": optional(body, change, lambda: number(body, change)),
        **dict.fromkeys(("fully_diluted_valuation", "high_24h", "low_24h", "total_supply")),
        **{name: figure(body, field) for name, field in _COINCAP.items()},
    }


def read_cryptocompare(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """A pricemultifull or a histominute; an error has status 200 and neither."""
    if not isinstance(body, dict):
        return [refused(-1, "not an object")]
    if body.get("RAW") is None:
        if body.get("Response") is None:
            return [refused(-1, "no RAW")]
        if isinstance(body["Response"], Written) or not isinstance(body["Response"], str):
            return [refused(-1, "Response is no text")]
        return [] if body["Response"] == "Error" else wire_candles.read_history(message, body, products)
    raw = body["RAW"]
    if not isinstance(raw, dict):
        return [refused(-1, "RAW is no object")]
    elements = [one for quotes in raw.values() for one in (quotes.values() if isinstance(quotes, dict) else [quotes])]
    if elements and lacks_poll(message):
        return [refused(-1, "headers of the poll are missing")]
    return in_dollars(message, items("asset_prices", elements, lambda one: _cryptocompare(object_of(one), message)))


def _cryptocompare(body: Body, message: Message) -> dict[str, Any]:
    currency = text(body, "TOSYMBOL").lower()
    if not (currency.isascii() and currency.isalnum()) or len(currency) > 16:
        raise NoRow(f"TOSYMBOL {currency}")
    symbol = text(body, "FROMSYMBOL")
    return {
        "source": message.venue,
        "asset_id": symbol,
        "vs_currency": currency,
        "last_updated": ticks(body, "LASTUPDATE", message.received_at, per_second=1),
        "symbol": symbol,
        "name": symbol,
        "price": positive(body, "PRICE"),
        "market_cap_rank": None,
        "change_24h_pct": rounded(body, "CHANGEPCT24HOUR"),
        **dict.fromkeys(("fully_diluted_valuation", "max_supply")),
        **{name: figure(body, field) for name, field in _CRYPTOCOMPARE.items()},
    }
