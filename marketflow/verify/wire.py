"""What a message must become, by the judge's own idea of each venue's bytes.

The bulk of plain Coinbase trades and quotes is read inside DuckDB (include/sql/verify/coinbase_read.sql); whatever
looks unusual there, REST pages, other venues and the aggregators' pages come here, to a `wire_…` module a venue.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from marketflow.verify import wire_aggregators, wire_binance, wire_ccxt, wire_coinbase
from marketflow.verify.wire_items import Item, Message, refused
from marketflow.verify.wire_values import Written

Reader = Callable[[Message, Any, frozenset[str]], list[Item]]

_READERS: dict[str, Reader] = {
    "binance": wire_binance.read,
    "coinbase_advanced": wire_coinbase.read_advanced,
    "coinbase_exchange": wire_coinbase.read_exchange,
    "coincap": wire_aggregators.read_coincap,
    "coingecko": wire_aggregators.read_coingecko,
    "cryptocompare": wire_aggregators.read_cryptocompare,
    # venue new: reader
}


def read(message: Message, products: frozenset[str]) -> list[Item]:
    """Every item of a message; none where it carries no data."""
    if message.http_status not in (None, 200):
        return []
    if message.oversize:
        return [refused(-1, "oversize")]
    venue = message.venue or ""
    reader = wire_ccxt.read if venue.startswith("ccxt_") else _READERS.get(venue)
    if reader is None:
        return [refused(-1, f"venue {message.venue}")]
    if message.received_at is None:
        return [refused(-1, "no received_at")]
    try:
        body = json.loads(
            (message.value or b"").decode(), parse_float=Written, parse_int=Written, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        return [refused(-1, str(error))]
    return reader(message, body, products)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
