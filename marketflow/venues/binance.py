"""Binance Spot: the public market-data streams and REST.

Facts, from the exchange's documentation (github.com/binance/binance-spot-api-docs, read 2026) and checked against
captures of 2019-05-03, 2026-02-16 and 2026-07-07 (tests/fixtures/captures):

- `/stream?streams=a/b` wraps each message as {"stream", "data"}, `/ws/<stream>` does not. Names are lower case there,
  upper case in the messages. A connection lives 24 h at most; the server pings every 20 s.
- `trade`: prices and sizes are texts, `t` goes up by one per symbol (1,163 of 1,163), `T` is the trade's time and `E`
  the message's. `m` says that the buyer is the maker, so taker_side is sell where it is true.
- Times are milliseconds, or microseconds on a connection that asks for them (`timeUnit=MICROSECOND`); which of the two
  is told by their size.
- `bookTicker` has neither type nor time: a quote's event time is its receipt. `u` orders the book's updates, jumping.
- REST `historicalTrades` pages by `fromId` upward and says nothing of its symbol, so header product_id does.
- REST `ticker/24hr` is a price of each symbol. A delisted one has price 0, firstId -1 and count 0.
- REST `klines` are arrays: opening time, open, high, low, close and volume as texts, closing time (the last tick of the
  interval), quote volume, count of trades, and more. Symbol and interval are not said, so headers do. The last is open.
- Errors of REST come with their status; on a socket as {"error": {"code", "msg"}, "id"}.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.reasons import (
    IGNORED_SUBSCRIPTIONS,
    IGNORED_VENUE_ERROR,
    Reason,
)
from marketflow.contracts.records import (
    AssetPrice,
    Candle,
    Ignored,
    Item,
    Outcome,
    Parsed,
    Quote,
    RejectedItem,
    Side,
    Trade,
    Unparseable,
)
from marketflow.contracts.topics import TICKER, TRADES, Topic
from marketflow.venues import candles, messages
from marketflow.venues.seen import Seen
from marketflow.venues.validation import (
    DECODE_ERRORS,
    INT64_MAX,
    PLAIN_NUMBER,
    Fields,
    RejectionError,
    elements_of,
    epoch_us,
    fields_of,
    item_of,
    notional,
)

VENUE = "binance"
# channels that are REST calls; a stream's messages say themselves what they are
HISTORICAL_TRADES = "historicalTrades"
TICKER_24HR = "ticker_24hr"
CANDLES_CHANNEL = "klines"
STREAMS = ("trade", "bookTicker")

_PRODUCT_IDS = messages.product_ids(VENUE)
_KLINE = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "trade_count")
# the last tick of an interval is a millisecond or a microsecond before its end
_LONGEST_TICK_US = 1_000
_TAKER_SIDE: dict[bool, Side] = {True: "sell", False: "buy"}
_SIDE_RAW = {True: "buyer is maker", False: "seller is maker"}

_Identifier = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]


class _Trade(msgspec.Struct, gc=False):
    e: str
    s: str
    t: _Identifier
    p: str
    q: str
    T: int
    m: bool


class _Wrapped(msgspec.Struct, gc=False):
    data: _Trade


_FAST = msgspec.json.Decoder(_Trade)
_FAST_WRAPPED = msgspec.json.Decoder(_Wrapped)


class _Glimpse(msgspec.Struct, gc=False):
    """The few fields a feed needs of a message; `u` without `e` is a bookTicker, the one that says no type."""

    e: str | None = None
    s: str | None = None
    t: int | None = None
    u: int | None = None


class _GlimpseWrapped(_Glimpse, gc=False):
    data: _Glimpse | None = None


_GLIMPSE = msgspec.json.Decoder(_GlimpseWrapped)
_UNDECODABLE = Seen(TRADES, "undecodable")


def look(value: bytes) -> Seen:
    """What a feed sees of a message. Never raises."""
    try:
        outer = _GLIMPSE.decode(value)
    except DECODE_ERRORS:
        return _UNDECODABLE
    found = outer if outer.data is None else outer.data
    product_id = _PRODUCT_IDS.get(found.s) if found.s is not None else None
    if found.e is None:
        return Seen(TICKER, "bookTicker", product_id) if found.u is not None else Seen(TRADES, "reply")
    if found.e == "trade" and product_id is not None and found.t is not None and 0 <= found.t <= INT64_MAX:
        return Seen(TRADES, "trade", product_id, ((product_id, found.t),))
    return Seen(TRADES, found.e[:40], product_id)


def stream_names(products: Iterable[str]) -> list[str]:
    """Names of the streams of canonical products."""
    names = [PRODUCTS[product].names[VENUE].lower() for product in products]
    return [f"{name}@{stream}" for stream in STREAMS for name in names]


def subscribe(products: Iterable[str]) -> list[bytes]:
    """The message to send after connecting, for canonical products."""
    return [msgspec.json.encode({"method": "SUBSCRIBE", "params": stream_names(products), "id": 1})]


def historical_trades_request(product: str, from_id: int, limit: int = 1000) -> str:
    """Canonical path and sorted query of one page of old trades: those from `from_id` upward."""
    query = {"fromId": str(from_id), "limit": str(limit), "symbol": PRODUCTS[product].names[VENUE]}
    return f"/api/v3/historicalTrades?{urlencode(sorted(query.items()))}"


def ticker_request(products: Iterable[str]) -> str:
    """Canonical path and query of the 24 hour figures of canonical products."""
    symbols = msgspec.json.encode([PRODUCTS[product].names[VENUE] for product in products]).decode()
    return f"/api/v3/ticker/24hr?{urlencode({'symbols': symbols, 'type': 'FULL'})}"


def ticker_weight(symbols: int) -> int:
    """What the exchange counts such a call as, against its limit per minute."""
    return 2 if symbols <= 20 else 40 if symbols <= 100 else 80


def topic_of(value: bytes) -> Topic:
    """The topic that a message of a stream is published to: `bookTicker` to its own, everything else to the trades'."""
    try:
        inner = _inner(fields_of(value))
    except RejectionError:
        return TRADES
    return TICKER if _is_book(inner) else TRADES


@messages.parser
def parse(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """Trades, quotes, 24 hour prices and candles; never raises."""
    channel = headers.get("channel")
    if channel == HISTORICAL_TRADES:
        return _rest_trades(headers, value, received)
    if channel == TICKER_24HR:
        return _rest_prices(value, received)
    if channel == CANDLES_CHANNEL:
        return _rest_candles(headers, value, received)
    try:
        message = _FAST_WRAPPED.decode(value).data if value.startswith(b'{"stream":"') else _FAST.decode(value)
    except DECODE_ERRORS:
        return _careful(value, received)
    item = _clean_trade(message, received) if message.e == "trade" else None
    return Parsed((item,)) if item is not None else _careful(value, received)


def _clean_trade(message: _Trade, received: int) -> Trade | None:
    """The trade of a message with nothing unusual in it; None sends it the careful way, which says what is wrong."""
    product_id = _PRODUCT_IDS.get(message.s)
    if product_id is None or not (PLAIN_NUMBER(message.p) and PLAIN_NUMBER(message.q)):
        return None
    price, size = Decimal(message.p), Decimal(message.q)
    if not (price and size):
        return None
    try:
        return _made(product_id, message.t, price, size, message.m, epoch_us("T", message.T, received))
    except RejectionError:
        return None


def _made(product_id: str, trade_id: int, price: Decimal, size: Decimal, buyer_is_maker: bool, event_us: int) -> Trade:
    return Trade(
        VENUE,
        product_id,
        trade_id,
        price,
        size,
        notional(price, size),
        _TAKER_SIDE[buyer_is_maker],
        _SIDE_RAW[buyer_is_maker],
        event_us,
        None,
    )


def _careful(value: bytes, received: int) -> Outcome:
    """A message that is no clean trade: a quote, another type, or something wrong that has to be named."""
    fields = _inner(fields_of(value))
    if _is_book(fields):
        return Parsed((item_of(lambda: _quote(fields, received)),))
    if not fields.has("e"):
        return _reply(fields)
    message_type = fields.text("e")
    if message_type == "trade":
        return Parsed((item_of(lambda: _stream_trade(fields, received)),))
    return messages.unknown(message_type)


def _inner(fields: Fields) -> Fields:
    """The message itself, taken out of the envelope of a combined stream."""
    return fields.object("data") if fields.has("stream") and fields.has("data") else fields


def _is_book(fields: Fields) -> bool:
    """A `bookTicker` is known by its keys alone."""
    return not fields.has("e") and all(fields.has(name) for name in ("u", "s", "b", "B", "a", "A"))


def _reply(fields: Fields) -> Outcome:
    """An answer to a request on the socket, or something that the documentation does not know."""
    if fields.has("error") or fields.has("code"):
        return Ignored(IGNORED_VENUE_ERROR)
    if fields.has("id"):
        return Ignored(IGNORED_SUBSCRIPTIONS)
    return Unparseable(Reason.UNEXPECTED_SHAPE, "an object without a type")


def _stream_trade(fields: Fields, received: int) -> Trade:
    product_id, trade_id = messages.product_of(fields, "s", VENUE), fields.integer("t")
    price, size, buyer_is_maker = fields.positive("p"), fields.positive("q"), fields.boolean("m")
    return _made(product_id, trade_id, price, size, buyer_is_maker, fields.epoch_us("T", received))


def _quote(fields: Fields, received: int) -> Item:
    product_id = messages.product_of(fields, "s", VENUE)
    bid, ask = fields.positive("b"), fields.positive("a")
    if bid > ask:
        return RejectedItem(Reason.CROSSED_QUOTE, f"bid {bid} is above ask {ask}")
    return Quote(
        venue=VENUE,
        product_id=product_id,
        sequence=fields.integer("u"),
        event_us=received,
        best_bid=bid,
        best_bid_size=fields.optional_figure("B"),
        best_ask=ask,
        best_ask_size=fields.optional_figure("A"),
        last_price=None,
        last_trade_id=None,
        open_24h=None,
        high_24h=None,
        low_24h=None,
        volume_24h=None,
    )


def _rest_trades(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """A page of historicalTrades: an array, oldest first, of one product that only the header names."""
    product = messages.product_in(headers, VENUE)
    return messages.page(elements_of(value), partial(_rest_trade, received=received, product_id=product))


def _rest_trade(element: msgspec.Raw, received: int, product_id: str) -> Trade:
    fields = fields_of(element)
    trade_id, price, size = fields.integer("id"), fields.positive("price"), fields.positive("qty")
    maker = fields.boolean("isBuyerMaker")
    return _made(product_id, trade_id, price, size, maker, fields.epoch_us("time", received))


def _rest_prices(value: bytes, received: int) -> Outcome:
    """The 24 hour figures: an array, or one object where one symbol was asked for."""
    if not value.lstrip().startswith(b"{"):
        elements = elements_of(value)
    elif fields_of(value).has("symbol"):
        elements = [msgspec.Raw(value)]
    else:
        raise RejectionError(Reason.UNEXPECTED_SHAPE, "an object without a symbol")
    return messages.page(elements, partial(_asset_price, received=received))


def _asset_price(element: msgspec.Raw, received: int) -> AssetPrice:
    """A symbol's price in its own quote currency. volume_24h is of the quote currency; there is no market cap."""
    fields = fields_of(element)
    product = PRODUCTS[messages.product_of(fields, "symbol", VENUE)]
    if not fields.has("lastPrice"):
        raise RejectionError(Reason.NULL_PRICE, f"lastPrice of {product.product_id} is null or missing")
    return AssetPrice(
        source=VENUE,
        asset_id=product.names[VENUE],
        vs_currency=product.quote.lower(),
        last_updated_us=fields.epoch_us("closeTime", received),
        symbol=product.base.lower(),
        name=product.base,
        price=fields.positive("lastPrice"),
        market_cap=None,
        market_cap_rank=None,
        fully_diluted_valuation=None,
        volume_24h=fields.optional_figure("quoteVolume"),
        high_24h=fields.optional_figure("highPrice"),
        low_24h=fields.optional_figure("lowPrice"),
        change_24h_pct=fields.optional_number("priceChangePercent"),
        circulating_supply=None,
        total_supply=None,
        max_supply=None,
    )


def _rest_candles(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """A page of klines: an array of arrays, oldest first."""
    return candles.parsed(candles.page_of(headers, VENUE, received), elements_of(value), _candle)


def _candle(page: candles.Page, element: msgspec.Raw) -> Candle:
    fields = candles.row(element, _KLINE)
    open_us = candles.closed(page, fields.epoch_us("open_time", page.received))
    close_us = fields.epoch_us("close_time", page.received)
    if not 0 < open_us + page.length_us - close_us <= _LONGEST_TICK_US:
        raise RejectionError(
            Reason.INCONSISTENT_CANDLE, f"close_time {close_us} µs is not that of a {page.interval} candle"
        )
    return candles.candle(
        page,
        open_us,
        fields,
        volume=candles.total("volume", fields.optional_number("volume")),
        notional=fields.optional_figure("quote_volume"),
        trade_count=fields.optional_integer("trade_count"),
    )
