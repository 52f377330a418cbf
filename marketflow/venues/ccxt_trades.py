"""Any exchange that the library ccxt knows, by its unified `fetch_trades`: venues `ccxt_<its name in the library>`.

Facts, from the library's source of 2026 (4.5.64) and its maintainers' words:

- The payload is ours: the JSON array of the trades that a call returned, each with ten members of the library's own
  (`id`, `timestamp`, `datetime`, `symbol`, `side`, `takerOrMaker`, `price`, `amount`, `cost`, `info`).
- `side` is what the taker did: "trades will be always taker" and a `takerOrMaker` of `maker` is "an obvious bug in some
  ccxt exchange's implementation" (github.com/ccxt/ccxt/issues/18986, 2023-09-14; the same for Binance's and for sides
  in general: issues/18193, 2025-10-17, pull/12501, 2022-03-26). `takerOrMaker` may be null.
- `price` and `amount` are floats by the time they get here. JSON has the shortest text that gives the same float, which
  is the venue's own number where that has at most 15 digits. Such trades are `float_born`.
- `timestamp` is in milliseconds, whatever the exchange tells.
- `id` is a text, and not of digits everywhere: some exchanges have UUIDs, and for others the library makes one up from
  time, side, amount and price. Those that are numbers need not be contiguous, and Binance's are of aggregated trades.
- `symbol` of a spot market is BASE/QUOTE; that of a derivative goes on (`BTC/USDT:USDT`) and is no product here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from urllib.parse import urlencode

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Outcome, Side, Trade
from marketflow.contracts.sources import CCXT_PREFIX
from marketflow.venues import messages
from marketflow.venues.validation import (
    INT64_MAX,
    Fields,
    RejectionError,
    elements_of,
    fields_of,
    notional,
    shown,
)

CHANNEL = "fetch_trades"
MEMBERS = (
    *("id", "timestamp", "datetime", "symbol", "side", "takerOrMaker"),
    *("price", "amount", "cost", "info"),
)
_SIDES: dict[str, Side] = {"buy": "buy", "sell": "sell"}


def venue_of(exchange: str) -> str:
    """The venue of an exchange of the library."""
    return f"{CCXT_PREFIX}{exchange}"


def symbol_of(product_id: str) -> str:
    """What the library calls a canonical product."""
    product = PRODUCTS[product_id]
    return f"{product.base}/{product.quote}"


def trades_request(product_id: str, since_ms: int | None, limit: int) -> str:
    """The call as text, for the header: its name and sorted arguments."""
    arguments = {"limit": str(limit), "symbol": symbol_of(product_id)}
    if since_ms is not None:
        arguments["since"] = str(since_ms)
    return f"{CHANNEL}?{urlencode(sorted(arguments.items()))}"


@messages.parser
def parse(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """One Trade per element of an answer, each accepted or rejected by itself; never raises."""
    product_id = headers.get("product_id", "")
    if product_id not in PRODUCTS:
        raise RejectionError(Reason.BAD_HEADERS, f"header product_id is {shown(product_id)}, no known product")
    return messages.page(elements_of(value), partial(_trade, headers["venue"], product_id, received))


def _trade(venue: str, product_id: str, received: int, element: msgspec.Raw) -> Trade:
    fields = fields_of(element)
    symbol = fields.text("symbol")
    if symbol != symbol_of(product_id):
        raise RejectionError(Reason.UNKNOWN_PRODUCT, f"symbol {shown(symbol)} is not {symbol_of(product_id)}")
    trade_id, taker_side = _trade_id(fields, venue), _taker_side(fields)
    price, size = fields.positive("price"), fields.positive("amount")
    return Trade(
        venue=venue,
        product_id=product_id,
        trade_id=trade_id,
        price=price,
        size=size,
        notional=notional(price, size),
        taker_side=taker_side,
        side_raw=taker_side,
        event_us=fields.epoch_us("timestamp", received),
        sequence=None,
        float_born=True,
    )


def _trade_id(fields: Fields, venue: str) -> int:
    """The id, which must be a plain number: a trade is known by it."""
    text = fields.text("id")
    if not (text.isascii() and text.isdigit()) or (text[0] == "0" and text != "0"):
        raise RejectionError(
            Reason.WRONG_TYPE,
            f"id {shown(text)} is no number: trades of {shown(venue)} have no numeric ids, so they cannot be kept here",
        )
    if len(text) > 19 or int(text) > INT64_MAX:
        raise RejectionError(Reason.OUT_OF_RANGE, f"id {shown(text)} is beyond {INT64_MAX}")
    return int(text)


def _taker_side(fields: Fields) -> Side:
    side = fields.text("side")
    if side not in _SIDES:
        raise RejectionError(Reason.UNKNOWN_SIDE, f"side is {shown(side)}, neither buy nor sell")
    if fields.has("takerOrMaker") and fields.text("takerOrMaker") != "taker":
        told = shown(fields.text("takerOrMaker"))
        raise RejectionError(Reason.UNKNOWN_SIDE, f"takerOrMaker is {told}: whose side {side} is cannot be told")
    return _SIDES[side]
