"""Whose message is this? Read from its content alone, for captures that do not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from marketflow.contracts.topics import CANDLES, PRICES, TICKER, TRADES, Topic
from marketflow.ingest.captured import time_us
from marketflow.venues import binance, coinbase_exchange, coingecko
from marketflow.venues.validation import DECODE_ERRORS

_COINBASE_TYPES = ("match", "last_match", "ticker", "heartbeat", "subscriptions")
_TOPIC_OF_CHANNEL = {
    "ticker": TICKER,
    "ticker_batch": TICKER,
    "bookTicker": TICKER,
    "markets": PRICES,
    "ticker_24hr": PRICES,
    "assets": PRICES,
    "pricemultifull": PRICES,
    "histominute": CANDLES,
    "candles": CANDLES,
    "kline": CANDLES,
    "klines": CANDLES,
}
# of a row of Binance's klines and of Coinbase Exchange's candles
_KLINE_VALUES, _CANDLE_VALUES = 12, 6
KNOWN_CHANNELS = frozenset({"matches", "trades", "trade", "market_trades", "heartbeat", *_TOPIC_OF_CHANNEL})
# A folder or file name that says whose captures it holds, for bodies that say nothing, such as errors.
_NAMES_IN_PATHS = {
    "coingecko": coingecko.VENUE,
    "coinbase": coinbase_exchange.VENUE,
    "binance": "binance",
    "coincap": "coincap",
    "cryptocompare": "cryptocompare",
    # venue new: venue in paths
}
KNOWN_VENUES = frozenset({*_NAMES_IN_PATHS.values(), "coinbase_advanced"})


class Identity(msgspec.Struct, frozen=True):
    """What a message's content tells: each None where it does not.

    `is_candles`: a page of candles, of a product that it does not name.
    """

    venue: str | None = None
    channel: str | None = None
    event_us: int | None = None
    is_candles: bool = False


NOBODY = Identity()


def identify(value: bytes) -> Identity:
    """The venue, channel and event time of a message; never raises."""
    try:
        content = msgspec.json.decode(value)
    except DECODE_ERRORS:
        return NOBODY
    if isinstance(content, dict):
        return _object(content)
    if isinstance(content, list) and content and isinstance(content[0], dict):
        return _array([each for each in content if isinstance(each, dict)])
    if isinstance(content, list) and content and isinstance(content[0], list):
        return _rows([each for each in content if isinstance(each, list)])
    return NOBODY


def _object(content: dict[str, Any]) -> Identity:
    kind = content.get("type")
    if kind == "ticker" and "volume_24_h" in content:
        return Identity("coinbase_advanced", "ticker", None)
    if isinstance(kind, str) and (kind in _COINBASE_TYPES or "product_id" in content):
        return Identity(coinbase_exchange.VENUE, None, time_us(content.get("time")))
    if isinstance(content.get("channel"), str) and isinstance(content.get("events"), list):
        return Identity("coinbase_advanced", content["channel"], time_us(content.get("timestamp")))
    stream, data = content.get("stream"), content.get("data")
    if isinstance(stream, str) and isinstance(data, dict):
        return Identity("binance", stream.partition("@")[2].partition("@")[0] or stream, time_us(data.get("E")))
    if isinstance(content.get("e"), str) and "s" in content:
        return Identity("binance", content["e"], time_us(content.get("E")))
    if "b" in content and "B" in content and "u" in content:
        return Identity("binance", "bookTicker", None)
    if "RAW" in content:
        return Identity("cryptocompare", "pricemultifull", _latest(_leaves(content["RAW"]), "LASTUPDATE"))
    if "Response" in content and "Data" in content:
        inner = content["Data"] if isinstance(content["Data"], dict) else {}
        return Identity("cryptocompare", "histominute", time_us(inner.get("TimeTo")), inner.get("Data") is not None)
    if isinstance(data, list) and data and isinstance(data[0], dict) and "priceUsd" in data[0]:
        return Identity("coincap", "assets", time_us(content.get("timestamp")))
    candles = content.get("candles")
    if isinstance(candles, list) and candles and all(isinstance(one, dict) and "start" in one for one in candles):
        starts = [{"start": int(text)} for one in candles if (text := str(one["start"])).isdecimal()]
        return Identity("coinbase_advanced", "candles", _latest(starts, "start"), True)
    return NOBODY


def _array(elements: list[dict[str, Any]]) -> Identity:
    first = elements[0]
    if "current_price" in first:
        return Identity(coingecko.VENUE, coingecko.CHANNEL, _latest(elements, "last_updated"))
    if "lastPrice" in first:
        return Identity("binance", "ticker_24hr", _latest(elements, "closeTime"))
    if "trade_id" in first and "side" in first:
        return Identity(coinbase_exchange.VENUE, "trades", _latest(elements, "time"))
    return NOBODY


def _rows(rows: list[list[Any]]) -> Identity:
    """Candles as arrays. A page proves no more than that its newest candle had begun."""
    opened = max((us for row in rows if row and (us := time_us(row[0])) is not None), default=None)
    first = rows[0]
    if len(first) == _KLINE_VALUES and isinstance(first[1], str):
        return Identity("binance", binance.CANDLES_CHANNEL, opened, True)
    if len(first) == _CANDLE_VALUES and all(isinstance(value, int | float) for value in first):
        return Identity(coinbase_exchange.VENUE, coinbase_exchange.CANDLES_CHANNEL, opened, True)
    return NOBODY


def _leaves(raw: object) -> list[dict[str, Any]]:
    """CryptoCompare's RAW.{from}.{to} blocks."""
    if not isinstance(raw, dict):
        return []
    blocks = (block for quotes in raw.values() if isinstance(quotes, dict) for block in quotes.values())
    return [block for block in blocks if isinstance(block, dict)]


def _latest(elements: list[dict[str, Any]], name: str) -> int | None:
    return max((us for each in elements if (us := time_us(each.get(name))) is not None), default=None)


def venue_in_path(path: Path) -> str | None:
    """The venue that the file's or its folder's name says."""
    for part in (path.name, path.parent.name):
        for name, venue in _NAMES_IN_PATHS.items():
            if part.lower().startswith(name):
                return venue
    return None


def topic_for(venue: str, channel: str, value: bytes) -> Topic:
    """Where a message belongs; what no rule knows goes to the trades' topic, as with a feed."""
    if venue == coinbase_exchange.VENUE and channel not in ("trades", coinbase_exchange.CANDLES_CHANNEL):
        return coinbase_exchange.topic_of(value)
    if venue == coingecko.VENUE:
        return coingecko.topic_of(value)
    return _TOPIC_OF_CHANNEL.get(channel, TRADES)
