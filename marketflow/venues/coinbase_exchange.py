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
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated

import msgspec

from marketflow.contracts.products import PRODUCTS, by_venue_name
from marketflow.contracts.reasons import (
    IGNORED_HEARTBEAT,
    IGNORED_SUBSCRIPTIONS,
    IGNORED_VENUE_ERROR,
    Reason,
    ignored_unknown,
)
from marketflow.contracts.records import (
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
    not_text,
    notional,
    received_us,
    shown,
)

VENUE = "coinbase_exchange"
CHANNELS = ("matches", "ticker", "heartbeat")

_TAKER_SIDE: dict[str, Side] = {"buy": "sell", "sell": "buy"}
# The venue's name to ours, from the registry, as a plain dict because it is read once a message.
_PRODUCT_IDS = {product.names[VENUE]: product.product_id for product in PRODUCTS.values() if VENUE in product.names}
_CHANNEL_OF_TYPE = {"match": "matches", "last_match": "matches", "ticker": "ticker", "heartbeat": "heartbeat"}
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


def topic_of(value: bytes) -> Topic:
    """The topic that a message of the feed is published to."""
    return glimpse(value).topic


def subscribe(products: Iterable[str]) -> list[bytes]:
    """The messages to send after connecting, for canonical products."""
    names = [PRODUCTS[product].names[VENUE] for product in products]
    return [msgspec.json.encode({"type": "subscribe", "product_ids": names, "channels": list(CHANNELS)})]


def parse(headers: Mapping[str, str], value: bytes) -> Outcome:
    """Trades of `match` messages and REST pages, quotes of `ticker`; never raises."""
    try:
        received = received_us(headers)
    except RejectionError as rejection:
        return Unparseable(rejection.reason, rejection.detail)
    unreadable = not_text(value)
    if unreadable is not None:
        return unreadable
    if headers.get("channel") == "trades":
        return _rest_trades(headers, value, received)
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
    try:
        fields = fields_of(value)
        if not fields.has("type"):
            raise RejectionError(Reason.UNEXPECTED_SHAPE, "an object without a type")
        message_type = fields.text("type")
    except RejectionError as rejection:
        return Unparseable(rejection.reason, rejection.detail)
    ignored = _IGNORED.get(message_type)
    if ignored is not None:
        return Ignored(ignored)
    if message_type in ("match", "last_match"):
        return Parsed((_trade(fields, received, None),))
    if message_type == "ticker":
        return Parsed((_quote(fields, received),))
    return Ignored(ignored_unknown("".join(c if c.isprintable() else "?" for c in message_type[:40])))


def _trade(fields: Fields, received: int, product_id: str | None) -> Item:
    """One trade, field by field. `product_id` is given where the payload does not say it (REST)."""
    try:
        product_id = product_id or _product(fields)
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
    except RejectionError as rejection:
        return RejectedItem(rejection.reason, rejection.detail)


def _quote(fields: Fields, received: int) -> Item:
    try:
        quote = Quote(
            venue=VENUE,
            product_id=_product(fields),
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
    except RejectionError as rejection:
        return RejectedItem(rejection.reason, rejection.detail)
    if quote.best_bid > quote.best_ask:
        return RejectedItem(Reason.CROSSED_QUOTE, f"best_bid {quote.best_bid} is above best_ask {quote.best_ask}")
    return quote


def _product(fields: Fields) -> str:
    name = fields.text("product_id")
    product = by_venue_name(VENUE, name)
    if product is None:
        raise RejectionError(Reason.UNKNOWN_PRODUCT, f"product_id {shown(name)} is not in the registry")
    return product.product_id


def _rest_trades(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """A page of /products/{id}/trades: an array, newest first, of one product that only the header names."""
    product = headers.get("product_id") or ""
    known = PRODUCTS.get(product)
    if known is None or VENUE not in known.names:
        return Unparseable(Reason.BAD_HEADERS, f"header product_id is {shown(product)}, not a product of {VENUE}")
    try:
        elements = elements_of(value)
    except RejectionError as rejection:
        return Unparseable(rejection.reason, rejection.detail)
    if not elements:
        return Ignored("empty_page")
    return Parsed(tuple(_element(element, received, product) for element in elements))


def _element(element: msgspec.Raw, received: int, product_id: str) -> Item:
    try:
        fields = fields_of(element)
    except RejectionError as rejection:
        return RejectedItem(rejection.reason, rejection.detail)
    return _trade(fields, received, product_id)
