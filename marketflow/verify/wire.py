"""Reads what a venue sent, slowly and strictly, with the standard library alone: the judge's own idea of the bytes.

The bulk of plain trades and quotes is read inside DuckDB (include/sql/verify/coinbase_read.sql); whatever looks unusual
there, REST pages and the aggregators' pages come here. What may become a row and what may not:
at most 20 integer and 18 fraction digits, prices and sizes above zero, times from 2009 to 60 s after receipt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = datetime(2009, 1, 1, tzinfo=UTC)
FUTURE = timedelta(seconds=60)
LARGEST = Decimal(10) ** 20
INT64 = 2**63 - 1
INT32 = 2**31 - 1
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,9})?")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")
_WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)
# the maker's side is on the wire
_TAKER = {"buy": "sell", "sell": "buy"}


class NoRow(Exception):  # noqa: N818 - an answer, not an error
    """The item cannot become a row; the message says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka record as bronze keeps it; times in µs."""

    value: bytes | None
    venue: str | None
    channel: str | None
    received_at: int | None
    http_status: int | None
    product_id: str | None
    vs_currency: str | None
    poll_id: str | None
    poll_started_at: int | None
    oversize: bool | None


@dataclass(frozen=True, slots=True)
class Item:
    """What one item of a message must become: a row of `kind` (trades, quotes, asset_prices), or a refusal."""

    index: int
    kind: str
    fields: dict[str, Any]
    why: str = ""


def refused(index: int, why: str) -> Item:
    """An item that belongs into quarantine."""
    return Item(index, "refused", {}, why)


def read(message: Message, products: frozenset[str]) -> list[Item]:
    """Every item of a message; none where it carries no data."""
    if message.http_status not in (None, 200):
        return []
    if message.oversize:
        return [refused(-1, "oversize")]
    reader = _READERS.get(message.venue or "")
    if reader is None:
        return [refused(-1, f"venue {message.venue}")]
    if message.received_at is None:
        return [refused(-1, "no received_at")]
    try:
        body = json.loads(
            (message.value or b"").decode(), parse_float=_Written, parse_int=_Written, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        return [refused(-1, str(error))]
    return reader(message, body, products)


class _Written(str):
    """A JSON number as its own text, so that neither digits nor the difference to a string are lost."""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _coinbase(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    if message.channel == "trades":
        return _coinbase_page(message, body, products)
    if not isinstance(body, dict) or not isinstance(body.get("type"), str) or isinstance(body["type"], _Written):
        return [refused(-1, "no object with a type")]
    if not body["type"] or "\x00" in body["type"]:
        return [refused(-1, "no usable type")]
    if body["type"] in ("match", "last_match"):
        return [_item(0, "trades", lambda: _trade(body, _product(body, products), message))]
    if body["type"] == "ticker":
        return [_item(0, "quotes", lambda: _quote(body, _product(body, products), message))]
    return []


def _coinbase_page(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    if message.product_id not in products:
        return [refused(-1, f"header product_id {message.product_id}")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    product = str(message.product_id)
    return [
        _item(index, "trades", lambda one=one: _trade(_object(one), product, message))  # type: ignore[misc]
        for index, one in enumerate(body)
    ]


def _coingecko(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    if not message.vs_currency or message.poll_id is None or message.poll_started_at is None:
        return [refused(-1, "headers of the poll are missing")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    return [
        _item(index, "asset_prices", lambda one=one: _price(_object(one), message))  # type: ignore[misc]
        for index, one in enumerate(body)
    ]


_READERS: dict[str, Callable[[Message, Any, frozenset[str]], list[Item]]] = {
    "coinbase_exchange": _coinbase,
    "coingecko": _coingecko,
}


def _item(index: int, kind: str, make: Callable[[], dict[str, Any]]) -> Item:
    try:
        return Item(index, kind, make())
    except NoRow as error:
        return refused(index, str(error))


def _trade(body: dict[str, Any], product: str, message: Message) -> dict[str, Any]:
    side = _text(body, "side")
    if side not in _TAKER:
        raise NoRow(f"side {side}")
    price, size = _positive(body, "price"), _positive(body, "size")
    if _WIDE.quantize(_WIDE.multiply(price, size), Decimal("1e-18")) >= LARGEST:
        raise NoRow("notional out of range")
    return {
        "venue": message.venue,
        "product_id": product,
        "trade_id": _integer(body, "trade_id", INT64),
        "price": price,
        "size": size,
        "taker_side": _TAKER[side],
        "side_raw": side,
        "event_ts": _time(body, "time", message),
        "sequence": _optional(body, "sequence", lambda: _integer(body, "sequence", INT64)),
    }


def _quote(body: dict[str, Any], product: str, message: Message) -> dict[str, Any]:
    bid, ask = _positive(body, "best_bid"), _positive(body, "best_ask")
    if bid > ask:
        raise NoRow("crossed")
    figures = ("best_bid_size", "best_ask_size", "open_24h", "high_24h", "low_24h", "volume_24h")
    return {
        "venue": message.venue,
        "product_id": product,
        "sequence": _optional(body, "sequence", lambda: _integer(body, "sequence", INT64)),
        "event_ts": _time(body, "time", message),
        "best_bid": bid,
        "best_ask": ask,
        "last_price": _optional(body, "price", lambda: _positive(body, "price")),
        "last_trade_id": _optional(body, "trade_id", lambda: _integer(body, "trade_id", INT64)),
        **{name: _figure(body, name) for name in figures},
    }


_FIGURES = {
    "market_cap": "market_cap",
    "fully_diluted_valuation": "fully_diluted_valuation",
    "volume_24h": "total_volume",
    "high_24h": "high_24h",
    "low_24h": "low_24h",
    "circulating_supply": "circulating_supply",
    "total_supply": "total_supply",
    "max_supply": "max_supply",
}


def _price(body: dict[str, Any], message: Message) -> dict[str, Any]:
    change = "price_change_percentage_24h"
    return {
        "source": message.venue,
        "asset_id": _text(body, "id"),
        "vs_currency": str(message.vs_currency).lower(),
        "last_updated": _time(body, "last_updated", message),
        "symbol": _text(body, "symbol"),
        "name": _text(body, "name"),
        "price": _positive(body, "current_price"),
        "market_cap_rank": _optional(body, "market_cap_rank", lambda: _integer(body, "market_cap_rank", INT32)),
        "change_24h_pct": _optional(body, change, lambda: _number(body, change)),
        **{name: _figure(body, field) for name, field in _FIGURES.items()},
    }


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NoRow("not an object")
    return value


def _product(body: dict[str, Any], products: frozenset[str]) -> str:
    product = _text(body, "product_id")
    if product not in products:
        raise NoRow(f"product {product}")
    return product


def _optional(body: dict[str, Any], name: str, make: Callable[[], Any]) -> Any:
    return None if body.get(name) is None else make()


def _figure(body: dict[str, Any], name: str) -> Decimal | None:
    number: Decimal | None = _optional(body, name, lambda: _number(body, name))
    if number is not None and number < 0:
        raise NoRow(f"{name} is negative")
    return number


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or isinstance(value, _Written) or not value or "\x00" in value:
        raise NoRow(f"{name} is no text")
    return value


def _integer(body: dict[str, Any], name: str, largest: int) -> int:
    value = body.get(name)
    if not isinstance(value, _Written) or not _NUMBER.fullmatch(value) or len(value) > 40:
        raise NoRow(f"{name} is no integer")
    number = Decimal(value)
    if number != int(number) or not 0 <= number <= largest:
        raise NoRow(f"{name} is no integer in range")
    return int(number)


def _number(body: dict[str, Any], name: str) -> Decimal:
    value = body.get(name)
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise NoRow(f"{name} is no number")
    number = Decimal(value)
    if not number:
        return Decimal(0)
    _, digits, exponent = number.as_tuple()
    fraction = -int(exponent) - (len(digits) - len("".join(map(str, digits)).rstrip("0")))
    if number.adjusted() >= 20 or fraction > 18:
        raise NoRow(f"{name} out of range")
    return number


def _positive(body: dict[str, Any], name: str) -> Decimal:
    number = _number(body, name)
    if number <= 0:
        raise NoRow(f"{name} is not positive")
    return number


def _time(body: dict[str, Any], name: str, message: Message) -> int:
    match = _TIME.fullmatch(_text(body, name))
    if match is None:
        raise NoRow(f"{name} is no time")
    day, clock, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError as error:
        raise NoRow(f"{name} is no time: {error}") from None
    microseconds = round(Decimal(f"0.{fraction or 0}") * 1_000_000)
    since = whole - EPOCH
    found = (since.days * 86_400 + since.seconds) * 1_000_000 + microseconds
    received = message.received_at or 0
    if whole < FIRST or found > received + FUTURE // timedelta(microseconds=1):
        raise NoRow(f"{name} is too early or in the future")
    return found
