"""The judge's reading of what the library ccxt returned: arrays of its unified trades, floats already."""

from __future__ import annotations

import re
from typing import Any

from marketflow.verify.wire_items import Item, Message, items, refused
from marketflow.verify.wire_values import INT64, Body, NoRow, money, object_of, text, ticks


def read(message: Message, body: Any, products: frozenset[str]) -> list[Item]:
    """One answer of fetch_trades, of the product that the header names."""
    if message.product_id not in products:
        return [refused(-1, f"header product_id {message.product_id}")]
    if not isinstance(body, list):
        return [refused(-1, "not an array")]
    return items("trades", body, lambda one: _trade(object_of(one), message))


def _trade(body: Body, message: Message) -> dict[str, Any]:
    product = str(message.product_id)
    if text(body, "symbol").split("/") != product.split("-"):
        raise NoRow("symbol of another product")
    trade_id, side = text(body, "id"), text(body, "side")
    if not re.fullmatch("0|[1-9][0-9]{0,18}", trade_id) or int(trade_id) > INT64:
        raise NoRow("id is no number in range")
    if side not in ("buy", "sell") or body.get("takerOrMaker") not in (None, "taker"):
        raise NoRow("no taker's side")
    return {
        "venue": message.venue,
        "product_id": product,
        "trade_id": int(trade_id),
        **money(body, "price", "amount"),
        "taker_side": side,
        "side_raw": side,
        "event_ts": ticks(body, "timestamp", message.received_at),
        "sequence": None,
        "float_born": True,
    }
