"""Coinbase Exchange: the public WebSocket feed and REST trades.

Facts, from the exchange's documentation (docs.cdp.coinbase.com/exchange, read 2026) and checked against captures of
2021-04-17 and 2026-07-07 (tests/fixtures/captures):

- A client must subscribe within 5 s; public channels need no key. Unknown message types must be ignored.
- `match` and `last_match` have the same fields. `last_match` comes once per product after a subscription: it is the
  latest trade from before it, so it may repeat a trade that is already here.
- Prices and sizes are texts; trade_id, last_trade_id and sequence are integers; times are RFC 3339 with microseconds.
  A placeholder time `0001-01-01T00:00:00.000000Z` occurs and is refused as time_before_2009.
- `match.side` is the MAKER's side (checked on 107 pairs: `ticker.side`, the taker's, is always the opposite), hence
  taker_side is the flip of it. REST trades carry the maker's side too.
- `trade_id` goes up by one per product (97 of 97); `sequence` counts all events of the book and jumps between matches.
- `heartbeat` comes once a second per product and carries last_trade_id.
- `ticker` of a trade shows the book after it, and either may arrive first. `best_bid_size` and `best_ask_size` exist
  since 2022. Cascading matches are batched in it, so it is a quote and never a tape.
- REST candles are arrays [time, low, high, open, close, volume] of JSON numbers, newest first, at most 300; an interval
  without a trade is missing. Neither product nor interval is said, so headers product_id and interval do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.reasons import (
    IGNORED_HEARTBEAT,
    IGNORED_SUBSCRIPTIONS,
    IGNORED_VENUE_ERROR,
    Reason,
)
from marketflow.contracts.records import (
    Candle,
    Ignored,
    Item,
    Outcome,
    Parsed,
    Quote,
    RejectedItem,
    Side,
    Trade,
)
from marketflow.contracts.topics import TICKER, TRADES, Topic
from marketflow.venues import candles, messages
from marketflow.venues.seen import Seen
from marketflow.venues.validation import (
    DECODE_ERRORS,
    INT64_MAX,
    PLAIN_NUMBER,
    AwareTime,
    Fields,
    RejectionError,
    elements_of,
    event_time_us,
    fields_of,
    item_of,
    notional,
    shown,
)

VENUE = "coinbase_exchange"
CHANNELS = ("matches", "ticker", "heartbeat")
REST_TRADES = "trades"
CANDLES_CHANNEL = "candles"

_TAKER_SIDE: dict[str, Side] = {"buy": "sell", "sell": "buy"}
_PRODUCT_IDS = messages.product_ids(VENUE)
_CHANNEL_OF_TYPE = {"match": "matches", "last_match": "matches", "ticker": "ticker", "heartbeat": "heartbeat"}
_CANDLE = ("time", "low", "high", "open", "close", "volume")
_IGNORED = {
    "heartbeat": IGNORED_HEARTBEAT,
    "subscriptions": IGNORED_SUBSCRIPTIONS,
    "error": IGNORED_VENUE_ERROR,
}

_Identifier = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]


class _Match(msgspec.Struct, tag_field="type", tag="match", gc=False):
    trade_id: _Identifier
    product_id: str
    price: str
    size: str
    side: str
    time: AwareTime
    sequence: _Identifier | None = None


class _LastMatch(_Match, tag_field="type", tag="last_match", gc=False):
    pass


class _Ticker(msgspec.Struct, tag_field="type", tag="ticker", gc=False):
    product_id: str
    time: AwareTime
    best_bid: str
    best_ask: str
    best_bid_size: str | None = None
    best_ask_size: str | None = None
    price: str | None = None
    open_24h: str | None = None
    high_24h: str | None = None
    low_24h: str | None = None
    volume_24h: str | None = None
    sequence: _Identifier | None = None
    trade_id: _Identifier | None = None


class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat", gc=False):
    pass


class Glimpse(msgspec.Struct, gc=False):
    """The few fields a feed needs of a message that it passes on; absent ones are None."""

    type: str | None = None
    product_id: str | None = None
    trade_id: _Identifier | None = None
    last_trade_id: _Identifier | None = None

    @property
    def is_trade(self) -> bool:
        """Whether the message is one trade of a product that the registry knows."""
        return (
            (self.type == "match" or self.type == "last_match")
            and self.trade_id is not None
            and self.product_id in _PRODUCT_IDS
        )

    @property
    def canonical_product(self) -> str | None:
        """Our name of the product, or None where the message names none or one we do not know."""
        return _PRODUCT_IDS.get(self.product_id) if self.product_id is not None else None

    @property
    def channel(self) -> str:
        """The channel header: the venue's channel, the message's own type where it is of none, or `undecodable`."""
        if self.type is None:
            return "undecodable"
        return _CHANNEL_OF_TYPE.get(self.type) or self.type[:40]

    @property
    def topic(self) -> Topic:
        """`ticker` goes to its own topic, everything else to the trades'."""
        return TICKER if self.type == "ticker" else TRADES


_FAST = msgspec.json.Decoder(_Match | _LastMatch | _Ticker | _Heartbeat)
_GLIMPSE = msgspec.json.Decoder(Glimpse)
_UNDECODABLE = Glimpse()


def glimpse(value: bytes) -> Glimpse:
    """Type, product and ids of a message; all None where it cannot be decoded. Never raises."""
    try:
        return _GLIMPSE.decode(value)
    except DECODE_ERRORS:
        return _UNDECODABLE


def look(value: bytes) -> Seen:
    """What a feed sees of a message. Never raises."""
    found = glimpse(value)
    product_id = found.canonical_product
    if product_id is not None:
        if found.is_trade and found.trade_id is not None:
            return Seen(TRADES, "matches", product_id, ((product_id, found.trade_id),))
        if found.type == "heartbeat" and found.last_trade_id is not None:
            return Seen(TRADES, "heartbeat", product_id, announced=(product_id, found.last_trade_id))
    return Seen(found.topic, found.channel, product_id)


def topic_of(value: bytes) -> Topic:
    """The topic that a message of the feed is published to."""
    return glimpse(value).topic


def subscribe(products: Iterable[str]) -> list[bytes]:
    """The messages to send after connecting, for canonical products."""
    names = [PRODUCTS[product].names[VENUE] for product in products]
    return [msgspec.json.encode({"type": "subscribe", "product_ids": names, "channels": list(CHANNELS)})]


@messages.parser
def parse(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """Trades of `match` messages and REST pages, quotes of `ticker`, candles of REST pages; never raises."""
    if headers.get("channel") == REST_TRADES:
        return _rest_trades(headers, value, received)
    if headers.get("channel") == CANDLES_CHANNEL:
        return _rest_candles(headers, value, received)
    try:
        message = _FAST.decode(value)
    except DECODE_ERRORS:
        return _careful(value, received)
    item: Trade | Quote | None
    if isinstance(message, _Match):
        item = _clean_trade(message, received)
    elif isinstance(message, _Ticker):
        item = _clean_quote(message, received)
    else:
        return Ignored(IGNORED_HEARTBEAT)
    return Parsed((item,)) if item is not None else _careful(value, received)


def _clean_trade(message: _Match, received: int) -> Trade | None:
    """The trade of a message with nothing unusual in it; None sends it the careful way, which says what is wrong."""
    product_id = _PRODUCT_IDS.get(message.product_id)
    taker_side = _TAKER_SIDE.get(message.side)
    if product_id is None or taker_side is None or not (PLAIN_NUMBER(message.price) and PLAIN_NUMBER(message.size)):
        return None
    price, size = Decimal(message.price), Decimal(message.size)
    if not (price and size):
        return None
    try:
        event_us = event_time_us("time", message.time, received)
        amount = notional(price, size)
    except RejectionError:
        return None
    return Trade(
        VENUE,
        product_id,
        message.trade_id,
        price,
        size,
        amount,
        taker_side,
        message.side,
        event_us,
        message.sequence,
    )


def _clean_quote(message: _Ticker, received: int) -> Quote | None:
    """The quote of a message with nothing unusual in it, as _clean_trade."""
    product_id = _PRODUCT_IDS.get(message.product_id)
    texts = (
        *(message.best_bid, message.best_ask, message.best_bid_size, message.best_ask_size, message.price),
        *(message.open_24h, message.high_24h, message.low_24h, message.volume_24h),
    )
    if product_id is None or not all(text is None or PLAIN_NUMBER(text) for text in texts):
        return None
    bid, ask, bid_size, ask_size, price, open_24h, high_24h, low_24h, volume_24h = (
        None if text is None else Decimal(text) for text in texts
    )
    if not bid or not ask or bid > ask or (price is not None and not price):
        return None
    try:
        event_us = event_time_us("time", message.time, received)
    except RejectionError:
        return None
    return Quote(
        VENUE,
        product_id,
        message.sequence,
        event_us,
        bid,
        bid_size,
        ask,
        ask_size,
        price,
        message.trade_id,
        open_24h,
        high_24h,
        low_24h,
        volume_24h,
    )


def _careful(value: bytes, received: int) -> Outcome:
    """A message that is no clean trade: another type, or a trade with something wrong that has to be named."""
    fields = fields_of(value)
    if not fields.has("type"):
        raise RejectionError(Reason.UNEXPECTED_SHAPE, "an object without a type")
    message_type = fields.text("type")
    ignored = _IGNORED.get(message_type)
    if ignored is not None:
        return Ignored(ignored)
    if message_type in ("match", "last_match"):
        return Parsed((item_of(lambda: _trade(fields, received, messages.product_of(fields, "product_id", VENUE))),))
    if message_type == "ticker":
        return Parsed((item_of(lambda: _quote(fields, received)),))
    return messages.unknown(message_type)


def _trade(fields: Fields, received: int, product_id: str) -> Trade:
    """One trade, field by field; a REST page's does not say its product."""
    trade_id = fields.integer("trade_id")
    side = fields.text("side")
    if side not in _TAKER_SIDE:
        raise RejectionError(Reason.UNKNOWN_SIDE, f"side is {shown(side)}, neither buy nor sell")
    price, size = fields.positive("price"), fields.positive("size")
    sequence = fields.optional_integer("sequence")
    event_us = fields.time_us("time", received)
    return Trade(
        VENUE,
        product_id,
        trade_id,
        price,
        size,
        notional(price, size),
        _TAKER_SIDE[side],
        side,
        event_us,
        sequence,
    )


def _quote(fields: Fields, received: int) -> Item:
    quote = Quote(
        venue=VENUE,
        product_id=messages.product_of(fields, "product_id", VENUE),
        sequence=fields.optional_integer("sequence"),
        event_us=fields.time_us("time", received),
        best_bid=fields.positive("best_bid"),
        best_bid_size=fields.optional_figure("best_bid_size"),
        best_ask=fields.positive("best_ask"),
        best_ask_size=fields.optional_figure("best_ask_size"),
        last_price=fields.optional_positive("price"),
        last_trade_id=fields.optional_integer("trade_id"),
        open_24h=fields.optional_figure("open_24h"),
        high_24h=fields.optional_figure("high_24h"),
        low_24h=fields.optional_figure("low_24h"),
        volume_24h=fields.optional_figure("volume_24h"),
    )
    if quote.best_bid > quote.best_ask:
        return RejectedItem(Reason.CROSSED_QUOTE, f"best_bid {quote.best_bid} is above best_ask {quote.best_ask}")
    return quote


def _rest_trades(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """A page of /products/{id}/trades: an array, newest first, of one product that only the header names."""
    product = messages.product_in(headers, VENUE)
    return messages.page(elements_of(value), lambda element: _trade(fields_of(element), received, product))


def _rest_candles(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """A page of /products/{id}/candles: an array of arrays, newest first."""
    return candles.parsed(candles.page_of(headers, VENUE, received), elements_of(value), _candle)


def _candle(page: candles.Page, element: msgspec.Raw) -> Candle:
    fields = candles.row(element, _CANDLE)
    open_us = candles.closed(page, fields.seconds_us("time", page.received))
    return candles.candle(page, open_us, fields, volume=candles.total("volume", fields.optional_rounded("volume")))
