"""The judge's reading of candles: Coinbase's two shapes, Binance's klines, CryptoCompare's histominute.

What may be a row: a candle on its interval's grid, over when it was received, with low ≤ open, close ≤ high.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from marketflow.verify.wire_items import Item, Message, items, refused
from marketflow.verify.wire_values import (
    INT64,
    Body,
    NoRow,
    figure,
    in_time,
    integer,
    object_of,
    optional,
    positive,
    rounded,
    text,
    ticks,
)

_SECOND_US = 1_000_000
_LENGTHS_US = {
    **{"1m": 60 * _SECOND_US, "5m": 300 * _SECOND_US, "15m": 900 * _SECOND_US},
    **{"1h": 3_600 * _SECOND_US, "6h": 21_600 * _SECOND_US, "1d": 86_400 * _SECOND_US},
}
_EXCHANGE = ("time", "low", "high", "open", "close", "volume")
_KLINE = ("t", "open", "high", "low", "close", "volume", "T", "q", "n")


def read_exchange(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """Coinbase Exchange: an array of arrays of JSON numbers."""
    if not _is_named(message, message.interval, products - _of_binance(products)):
        return [refused(-1, f"headers {message.product_id}, {message.interval}")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    return items("candles", body, lambda one: _exchange(_named(one, _EXCHANGE), message))


def _exchange(body: Body, message: Message) -> dict[str, Any]:
    at = ticks(body, "time", message.received_at, per_second=1)
    return _candle(body, at, str(message.interval), message) | {"volume": _there("volume", _double(body, "volume"))}


def read_advanced(message: Message, body: Body, products: frozenset[str]) -> list[Item]:
    """Coinbase Advanced Trade: objects of texts."""
    if not _is_named(message, message.interval, products - _of_binance(products)):
        return [refused(-1, f"headers {message.product_id}, {message.interval}")]
    if not isinstance(body["candles"], list):
        return [refused(-1, "candles is no array")]
    return items("candles", body["candles"], lambda one: _advanced(object_of(one), message))


def _advanced(body: Body, message: Message) -> dict[str, Any]:
    start = text(body, "start")
    if not re.fullmatch("[0-9]{1,12}", start):
        raise NoRow(f"start {start}")
    at = in_time("start", int(start) * _SECOND_US, message.received_at)
    return _candle(body, at, str(message.interval), message) | {"volume": _there("volume", figure(body, "volume"))}


def read_klines(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """Binance: an array of arrays, with the moment of each candle's last tick."""
    if not _is_named(message, message.interval, _of_binance(products)):
        return [refused(-1, f"headers {message.product_id}, {message.interval}")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    return items("candles", body, lambda one: _kline(_named(one, _KLINE), message))


def _kline(body: Body, message: Message) -> dict[str, Any]:
    at, interval = ticks(body, "t", message.received_at), str(message.interval)
    found = _candle(body, at, interval, message)
    if not 1 <= at + _LENGTHS_US[interval] - ticks(body, "T", message.received_at) <= 1_000:
        raise NoRow(f"no candle of {interval}")
    return found | {
        "volume": _there("volume", figure(body, "volume")),
        "notional": figure(body, "q"),
        "trade_count": optional(body, "n", lambda: integer(body, "n", INT64)),
    }


def read_history(message: Message, body: Body, products: frozenset[str]) -> list[Item]:
    """CryptoCompare: objects of doubles; an answer that holds no such page carries no data."""
    page = body.get("Data")
    if not isinstance(page, dict) or page.get("Data") is None:
        return []
    interval = "1m" if message.interval is None else message.interval
    if not _is_named(message, interval, frozenset(one for one in products if one.endswith("-USD"))):
        return [refused(-1, f"headers {message.product_id}, {message.interval}")]
    if not isinstance(page["Data"], list):
        return [refused(-1, "Data is no array")]
    return items("candles", page["Data"], lambda one: _minute(object_of(one), interval, message))


def _minute(body: Body, interval: str, message: Message) -> dict[str, Any]:
    at = ticks(body, "time", message.received_at, per_second=1)
    return _candle(body, at, interval, message) | {
        "volume": _there("volumefrom", _double(body, "volumefrom")),
        "notional": _double(body, "volumeto"),
    }


def _is_named(message: Message, interval: str | None, products: frozenset[str]) -> bool:
    return message.product_id in products and interval in _LENGTHS_US


def _of_binance(products: frozenset[str]) -> frozenset[str]:
    """What trades there is quoted in USDT, and nothing that trades at Coinbase is."""
    return frozenset(one for one in products if one.endswith("-USDT"))


def _named(row: Any, names: tuple[str, ...]) -> Body:
    """The first values of an array, by name."""
    if not isinstance(row, list) or len(row) < len(names):
        raise NoRow("not a row of a candle")
    return dict(zip(names, row, strict=False))


def _candle(body: Body, at: int, interval: str, message: Message) -> dict[str, Any]:
    """What all venues' candles have in common."""
    length = _LENGTHS_US[interval]
    if at % length:
        raise NoRow(f"{at} is off the grid of {interval}")
    if at + length > (message.received_at or 0):
        raise NoRow("not over yet")
    prices = {name: positive(body, name) for name in ("open", "high", "low", "close")}
    if not prices["low"] <= min(prices["open"], prices["close"]) <= max(prices.values()) <= prices["high"]:
        raise NoRow("prices outside low and high")
    return {
        "venue": message.venue,
        "product_id": message.product_id,
        "interval": interval,
        "open_ts": at,
        **prices,
        **dict.fromkeys(("notional", "trade_count")),
    }


def _double(body: Body, name: str) -> Decimal | None:
    found = rounded(body, name)
    if found is not None and found < 0:
        raise NoRow(f"{name} is negative")
    return found


def _there(name: str, found: Decimal | None) -> Decimal:
    if found is None:
        raise NoRow(f"{name} is missing")
    return found
