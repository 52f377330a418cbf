"""The judge's reading of Binance: streams, old trades, 24 hour figures and klines."""

from __future__ import annotations

from typing import Any

from marketflow.verify import wire_candles
from marketflow.verify.wire_items import Item, Message, item, items, lacks_poll, refused
from marketflow.verify.wire_values import (
    INT64,
    Body,
    NoRow,
    figure,
    integer,
    money,
    number,
    object_of,
    optional,
    positive,
    text,
    ticks,
)

# a book's message has no type: these keys are what it is known by
_BOOK = ("u", "s", "b", "B", "a", "A")


def read(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """A stream's message, in its envelope or not, or a page of REST."""
    if message.channel == "historicalTrades":
        return _page(message, body, products)
    if message.channel == "ticker_24hr":
        return _prices(message, body, products)
    if message.channel == "klines":
        return wire_candles.read_klines(message, body, products)
    if not isinstance(body, dict):
        return [refused(-1, "not an object")]
    if body.get("stream") is not None and body.get("data") is not None:
        body = body["data"]
        if not isinstance(body, dict):
            return [refused(-1, "data is no object")]
    if body.get("e") is None:
        if all(body.get(name) is not None for name in _BOOK):
            return [item(0, "quotes", lambda: _quote(body, message, products))]
        known = any(body.get(name) is not None for name in ("error", "code", "id"))
        return [] if known else [refused(-1, "no type")]
    try:
        kind = text(body, "e")
    except NoRow as error:
        return [refused(-1, str(error))]
    return [item(0, "trades", lambda: _stream_trade(body, message, products))] if kind == "trade" else []


def _page(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    if message.product_id not in products or not str(message.product_id).endswith("-USDT"):
        return [refused(-1, f"header product_id {message.product_id}")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    product = str(message.product_id)
    names = ("id", "price", "qty", "isBuyerMaker", "time")
    return items("trades", body, lambda one: _trade(object_of(one), names, product, message))


def _prices(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    if lacks_poll(message):
        return [refused(-1, "headers of the poll are missing")]
    elements = body if isinstance(body, list) else [body]
    if not isinstance(body, list) and not (isinstance(body, dict) and body.get("symbol") is not None):
        return [refused(-1, "neither an array nor an object with a symbol")]
    return items("asset_prices", elements, lambda one: _price(object_of(one), message, products))


def _product(body: Body, name: str, products: frozenset[str]) -> str:
    """The product whose name without its dash is the symbol; those that trade here are quoted in USDT."""
    symbol = text(body, name)
    product = f"{symbol[:-4]}-{symbol[-4:]}"
    if not symbol.endswith("USDT") or product not in products:
        raise NoRow(f"symbol {symbol}")
    return product


def _stream_trade(body: Body, message: Message, products: frozenset[str]) -> dict[str, Any]:
    return _trade(body, ("t", "p", "q", "m", "T"), _product(body, "s", products), message)


def _trade(body: Body, names: tuple[str, str, str, str, str], product: str, message: Message) -> dict[str, Any]:
    trade_id, price_name, size_name, maker_name, time_name = names
    buyer_is_maker = body.get(maker_name)
    if not isinstance(buyer_is_maker, bool):
        raise NoRow(f"{maker_name} is neither true nor false")
    return {
        "venue": message.venue,
        "product_id": product,
        "trade_id": integer(body, trade_id, INT64),
        **money(body, price_name, size_name),
        "taker_side": "sell" if buyer_is_maker else "buy",
        "side_raw": "buyer is maker" if buyer_is_maker else "seller is maker",
        "event_ts": ticks(body, time_name, message.received_at),
        "sequence": None,
    }


def _quote(body: Body, message: Message, products: frozenset[str]) -> dict[str, Any]:
    bid, ask = positive(body, "b"), positive(body, "a")
    if bid > ask:
        raise NoRow("crossed")
    nothing = ("last_price", "last_trade_id", "open_24h", "high_24h", "low_24h", "volume_24h")
    return {
        "venue": message.venue,
        "product_id": _product(body, "s", products),
        "sequence": integer(body, "u", INT64),
        "event_ts": message.received_at,
        "best_bid": bid,
        "best_ask": ask,
        "best_bid_size": figure(body, "B"),
        "best_ask_size": figure(body, "A"),
        **dict.fromkeys(nothing),
    }


def _price(body: Body, message: Message, products: frozenset[str]) -> dict[str, Any]:
    product = _product(body, "symbol", products)
    base, quote = product.split("-")
    change = "priceChangePercent"
    nothing = ("market_cap", "market_cap_rank", "fully_diluted_valuation")
    return {
        "source": message.venue,
        "asset_id": f"{base}{quote}",
        "vs_currency": quote.lower(),
        "last_updated": ticks(body, "closeTime", message.received_at),
        "symbol": base.lower(),
        "name": base,
        "price": positive(body, "lastPrice"),
        "volume_24h": figure(body, "quoteVolume"),
        "high_24h": figure(body, "highPrice"),
        "low_24h": figure(body, "lowPrice"),
        "change_24h_pct": optional(body, change, lambda: number(body, change)),
        **dict.fromkeys((*nothing, "circulating_supply", "total_supply", "max_supply")),
    }
