"""Coinbase Advanced Trade: the public WebSocket channels and REST trades.

Facts, from the exchange's documentation (docs.cdp.coinbase.com/advanced-trade, read 2026), from public adapters'
fixtures of 2025-12-31 and 2026-04-07, and from a recorder's capture of tickers of 2025-11-08:

- A message is an envelope: channel, timestamp (RFC 3339, nanoseconds), sequence_num, events. sequence_num goes up by
  one per connection over all its channels, so a jump says that something was lost and not of which product.
- `market_trades` comes in batches of 250 ms, newest trade first. `trade_id` is a text, `side` BUY or SELL and the
  MAKER's, hence taker_side is the flip of it. The first event of a connection is a `snapshot` of trades from before.
- `ticker` has neither time nor trade_id of its own: its event time is the envelope's. `ticker_batch` has no best bid
  and ask and is ignored. A ticker that a recorder kept without its envelope has the time of its receipt.
- `heartbeats` keep an idle connection open; their times are no RFC 3339. Unknown channels must be ignored.
- REST `market/products/{id}/ticker` gives trades between two whole seconds, newest first, with the maker's side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

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
    Fields,
    RejectionError,
    fields_of,
    item_of,
    not_text,
    notional,
    received_us,
    shown,
)

VENUE = "coinbase_advanced"
CHANNELS = ("market_trades", "ticker", "heartbeats")
REST_TRADES = "trades"

_TAKER_SIDE: dict[str, Side] = {"BUY": "sell", "SELL": "buy"}
_IGNORED = {"heartbeats": IGNORED_HEARTBEAT, "subscriptions": IGNORED_SUBSCRIPTIONS}


class Glimpse(msgspec.Struct, gc=False):
    """The few fields a feed needs of a message that it passes on; absent ones are None."""

    channel: str | None = None
    sequence_num: int | None = None

    @property
    def topic(self) -> Topic:
        """`ticker` goes to its own topic, everything else to the trades'."""
        return TICKER if self.channel == "ticker" else TRADES


_GLIMPSE = msgspec.json.Decoder(Glimpse)
_UNDECODABLE = Glimpse()


def glimpse(value: bytes) -> Glimpse:
    """Channel and number of a message; all None where it cannot be decoded. Never raises."""
    try:
        return _GLIMPSE.decode(value)
    except DECODE_ERRORS:
        return _UNDECODABLE


def topic_of(value: bytes) -> Topic:
    """The topic that a message of the feed is published to."""
    return glimpse(value).topic


def subscribe(products: Iterable[str]) -> list[bytes]:
    """The messages to send after connecting, one a channel, for canonical products."""
    names = [PRODUCTS[product].names[VENUE] for product in products]
    return [
        msgspec.json.encode({"type": "subscribe", "product_ids": names, "channel": channel}) for channel in CHANNELS
    ]


def parse(headers: Mapping[str, str], value: bytes) -> Outcome:
    """Trades of `market_trades` and REST pages, quotes of `ticker`; never raises."""
    try:
        received = received_us(headers)
        unreadable = not_text(value)
        if unreadable is not None:
            return unreadable
        fields = fields_of(value)
        if headers.get("channel") == REST_TRADES:
            items = [item_of(partial(_trade, element, received)) for element in fields.elements("trades")]
            return Parsed(tuple(items)) if items else Ignored("empty_page")
        if fields.has("channel"):
            return _channel(fields, received)
        if not fields.has("type"):
            raise RejectionError(Reason.UNEXPECTED_SHAPE, "an object without a channel")
        if fields.text("type") == "error":
            return Ignored(IGNORED_VENUE_ERROR)
        if fields.text("type") == "ticker":  # without its envelope
            return Parsed((item_of(lambda: _quote(fields, received)),))
    except RejectionError as rejection:
        return Unparseable(rejection.reason, rejection.detail)
    return Ignored(ignored_unknown(_printable(fields.text("type"))))


def _channel(fields: Fields, received: int) -> Outcome:
    channel = fields.text("channel")
    if channel in _IGNORED:
        return Ignored(_IGNORED[channel])
    if channel not in ("market_trades", "ticker"):
        return Ignored(ignored_unknown(_printable(channel)))
    events = fields.elements("events")
    if channel == "market_trades":
        items = [item for event in events for item in _of_event(event, "trades", partial(_trade, received=received))]
    else:
        at = fields.time_us("timestamp", received)
        items = [item for event in events for item in _of_event(event, "tickers", partial(_ticker, event_us=at))]
    return Parsed(tuple(items)) if items else Ignored("empty_events")


def _of_event(event: msgspec.Raw, name: str, make: Callable[[msgspec.Raw], Item]) -> list[Item]:
    """An event's items; one that is no event is one rejected item, and its neighbours stay."""
    try:
        elements = fields_of(event).elements(name)
    except RejectionError as rejection:
        return [RejectedItem(rejection.reason, f"an event: {rejection.detail}")]
    return [item_of(partial(make, element)) for element in elements]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:40])


def _trade(element: msgspec.Raw, received: int) -> Trade:
    fields = fields_of(element)
    product_id = _product(fields)
    trade_id = _trade_id(fields)
    side = fields.text("side")
    if side not in _TAKER_SIDE:
        raise RejectionError(Reason.UNKNOWN_SIDE, f"side is {shown(side)}, neither BUY nor SELL")
    price, size = fields.positive("price"), fields.positive("size")
    event_us = fields.time_us("time", received)
    return Trade(
        VENUE, product_id, trade_id, price, size, notional(price, size), _TAKER_SIDE[side], side, event_us, None
    )


def _trade_id(fields: Fields) -> int:
    """The id, which is a text of digits here."""
    text = fields.text("trade_id")
    if not (text.isascii() and text.isdigit()):
        raise RejectionError(Reason.WRONG_TYPE, f"trade_id is {shown(text)}, not digits")
    if len(text) > 19 or int(text) > INT64_MAX:
        raise RejectionError(Reason.OUT_OF_RANGE, f"trade_id {shown(text)} is beyond {INT64_MAX}")
    return int(text)


def _ticker(element: msgspec.Raw, event_us: int) -> Item:
    return _quote(fields_of(element), event_us)


def _quote(fields: Fields, event_us: int) -> Item:
    product_id = _product(fields)
    bid, ask = fields.positive("best_bid"), fields.positive("best_ask")
    if bid > ask:
        return RejectedItem(Reason.CROSSED_QUOTE, f"best_bid {bid} is above best_ask {ask}")
    return Quote(
        venue=VENUE,
        product_id=product_id,
        sequence=None,
        event_us=event_us,
        best_bid=bid,
        best_bid_size=fields.optional_figure("best_bid_quantity"),
        best_ask=ask,
        best_ask_size=fields.optional_figure("best_ask_quantity"),
        last_price=fields.optional_positive("price"),
        last_trade_id=None,
        open_24h=None,
        high_24h=fields.optional_figure("high_24_h"),
        low_24h=fields.optional_figure("low_24_h"),
        volume_24h=fields.optional_figure("volume_24_h"),
    )


def _product(fields: Fields) -> str:
    name = fields.text("product_id")
    product = by_venue_name(VENUE, name)
    if product is None:
        raise RejectionError(Reason.UNKNOWN_PRODUCT, f"product_id {shown(name)} is not in the registry")
    return product.product_id
