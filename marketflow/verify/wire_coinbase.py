"""The judge's reading of Coinbase: the Exchange feed, its REST trades and candles, and Advanced Trade."""

from __future__ import annotations

from typing import Any

from marketflow.verify import wire_candles
from marketflow.verify.wire_items import Item, Message, item, items, refused
from marketflow.verify.wire_values import (
    INT64,
    Body,
    NoRow,
    Written,
    figure,
    integer,
    list_of,
    money,
    object_of,
    optional,
    positive,
    text,
    time,
)

# the maker's side is on the wire
_TAKER = {"buy": "sell", "sell": "buy"}


def read_exchange(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """A feed message, or a page of trades or candles."""
    if message.channel == "candles":
        return wire_candles.read_exchange(message, body, products)
    if message.channel == "trades":
        return _page(message, body, products)
    if not isinstance(body, dict) or not isinstance(body.get("type"), str) or isinstance(body["type"], Written):
        return [refused(-1, "no object with a type")]
    if not body["type"] or "\x00" in body["type"]:
        return [refused(-1, "no usable type")]
    if body["type"] in ("match", "last_match"):
        return [item(0, "trades", lambda: _trade(body, _product(body, products), message))]
    if body["type"] == "ticker":
        return [item(0, "quotes", lambda: _quote(body, _product(body, products), message))]
    return []


def _page(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    if message.product_id not in products:
        return [refused(-1, f"header product_id {message.product_id}")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    product = str(message.product_id)
    return items("trades", body, lambda one: _trade(object_of(one), product, message))


def _trade(body: Body, product: str, message: Message) -> dict[str, Any]:
    side = text(body, "side")
    if side not in _TAKER:
        raise NoRow(f"side {side}")
    return {
        "venue": message.venue,
        "product_id": product,
        "trade_id": integer(body, "trade_id", INT64),
        **money(body, "price", "size"),
        "taker_side": _TAKER[side],
        "side_raw": side,
        "event_ts": time(body, "time", message.received_at),
        "sequence": optional(body, "sequence", lambda: integer(body, "sequence", INT64)),
    }


def _quote(body: Body, product: str, message: Message) -> dict[str, Any]:
    bid, ask = _uncrossed(body)
    figures = ("best_bid_size", "best_ask_size", "open_24h", "high_24h", "low_24h", "volume_24h")
    return {
        "venue": message.venue,
        "product_id": product,
        "sequence": optional(body, "sequence", lambda: integer(body, "sequence", INT64)),
        "event_ts": time(body, "time", message.received_at),
        "best_bid": bid,
        "best_ask": ask,
        "last_price": optional(body, "price", lambda: positive(body, "price")),
        "last_trade_id": optional(body, "trade_id", lambda: integer(body, "trade_id", INT64)),
        **{name: figure(body, name) for name in figures},
    }


def _uncrossed(body: Body) -> tuple[Any, Any]:
    bid, ask = positive(body, "best_bid"), positive(body, "best_ask")
    if bid > ask:
        raise NoRow("crossed")
    return bid, ask


def _product(body: Body, products: frozenset[str]) -> str:
    product = text(body, "product_id")
    if product not in products:
        raise NoRow(f"product {product}")
    return product


def read_advanced(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """An envelope of events, a page of trades or candles, or a ticker that was recorded without its envelope."""
    if not isinstance(body, dict):
        return [refused(-1, "not an object")]
    if message.channel == "candles" and body.get("candles") is not None:
        return wire_candles.read_advanced(message, body, products)
    try:
        if message.channel == "trades":
            return items("trades", list_of(body, "trades"), lambda one: _advanced_trade(one, message, products))
        if body.get("channel") is None:
            if text(body, "type") != "ticker":
                return []
            at = message.received_at
            return [item(0, "quotes", lambda: _advanced_quote(body, at, message, products))]
        channel = text(body, "channel")
        if channel not in ("market_trades", "ticker"):
            return []
        name = "trades" if channel == "market_trades" else "tickers"
        at = None if name == "trades" else time(body, "timestamp", message.received_at)
        elements = [one for event in list_of(body, "events") for one in _of_event(event, name)]
    except NoRow as error:
        return [refused(-1, str(error))]
    if name == "trades":
        return items("trades", elements, lambda one: _advanced_trade(one, message, products))
    return items("quotes", elements, lambda one: _advanced_quote(object_of(one), at, message, products))


def _of_event(event: Any, name: str) -> list[Any]:
    """An event's elements; one that is no event stands for itself, to be refused as an item."""
    return event[name] if isinstance(event, dict) and isinstance(event.get(name), list) else [None]


def _advanced_trade(element: Any, message: Message, products: frozenset[str]) -> dict[str, Any]:
    body = object_of(element)
    side, trade_id = text(body, "side"), text(body, "trade_id")
    if side not in ("BUY", "SELL"):
        raise NoRow(f"side {side}")
    if not (trade_id.isascii() and trade_id.isdigit()) or len(trade_id) > 19 or int(trade_id) > INT64:
        raise NoRow(f"trade_id {trade_id}")
    return {
        "venue": message.venue,
        "product_id": _product(body, products),
        "trade_id": int(trade_id),
        **money(body, "price", "size"),
        "taker_side": _TAKER[side.lower()],
        "side_raw": side,
        "event_ts": time(body, "time", message.received_at),
        "sequence": None,
    }


def _advanced_quote(body: Body, at: int | None, message: Message, products: frozenset[str]) -> dict[str, Any]:
    bid, ask = _uncrossed(body)
    return {
        "venue": message.venue,
        "product_id": _product(body, products),
        "sequence": None,
        "event_ts": at,
        "best_bid": bid,
        "best_ask": ask,
        "best_bid_size": figure(body, "best_bid_quantity"),
        "best_ask_size": figure(body, "best_ask_quantity"),
        "last_price": optional(body, "price", lambda: positive(body, "price")),
        "last_trade_id": None,
        "open_24h": None,
        "high_24h": figure(body, "high_24_h"),
        "low_24h": figure(body, "low_24_h"),
        "volume_24h": figure(body, "volume_24_h"),
    }
