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
from marketflow.venues.seen import Seen, identifier
from marketflow.venues.validation import (
    DECODE_ERRORS,
    INT64_MAX,
    Fields,
    RejectionError,
    fields_of,
    item_of,
    notional,
    shown,
)

VENUE = "coinbase_advanced"
CHANNELS = ("market_trades", "ticker", "heartbeats")
REST_TRADES = "trades"
CANDLES_CHANNEL = "candles"

_TAKER_SIDE: dict[str, Side] = {"BUY": "sell", "SELL": "buy"}
_IGNORED = {"heartbeats": IGNORED_HEARTBEAT, "subscriptions": IGNORED_SUBSCRIPTIONS}
_PRODUCT_IDS = messages.product_ids(VENUE)


class _Named(msgspec.Struct, gc=False):
    """One trade or one ticker: whose it is, and a trade's id."""

    product_id: str | None = None
    trade_id: str | int | None = None


class _Event(msgspec.Struct, gc=False):
    trades: list[_Named] = []
    tickers: list[_Named] = []


class _Glimpse(msgspec.Struct, gc=False):
    """The few fields a feed needs of a message that it passes on; absent ones are None."""

    channel: str | None = None
    sequence_num: int | None = None
    events: msgspec.Raw = msgspec.Raw(b"[]")


_GLIMPSE = msgspec.json.Decoder(_Glimpse)
_EVENTS = msgspec.json.Decoder(list[_Event])
_UNDECODABLE = Seen(TRADES, "undecodable")


def look(value: bytes) -> Seen:
    """What a feed sees of a message. Never raises."""
    try:
        found = _GLIMPSE.decode(value)
    except DECODE_ERRORS:
        return _UNDECODABLE
    channel = (found.channel or "none")[:40]
    topic = TICKER if channel == "ticker" else TRADES
    if channel not in ("market_trades", "ticker"):
        return Seen(topic, channel, number=found.sequence_num)
    try:
        events = _EVENTS.decode(found.events)
    except DECODE_ERRORS:  # the parser says what is wrong; its number still counts
        return Seen(topic, channel, number=found.sequence_num)
    named = [each for event in events for each in (*event.trades, *event.tickers)]
    products = {_PRODUCT_IDS.get(each.product_id or "") for each in named}
    trades = sorted((product_id, trade_id) for event in events for product_id, trade_id in _traded(event))
    return Seen(topic, channel, products.pop() if len(products) == 1 else None, trades, number=found.sequence_num)


def _traded(event: _Event) -> Iterable[tuple[str, int]]:
    for trade in event.trades:
        product_id, trade_id = _PRODUCT_IDS.get(trade.product_id or ""), identifier(trade.trade_id)
        if product_id is not None and trade_id is not None:
            yield product_id, trade_id


def topic_of(value: bytes) -> Topic:
    """The topic that a message of the feed is published to."""
    return look(value).topic


def subscribe(products: Iterable[str]) -> list[bytes]:
    """The messages to send after connecting, one a channel, for canonical products."""
    names = [PRODUCTS[product].names[VENUE] for product in products]
    return [
        msgspec.json.encode({"type": "subscribe", "product_ids": names, "channel": channel}) for channel in CHANNELS
    ]


@messages.parser
def parse(headers: Mapping[str, str], value: bytes, received: int) -> Outcome:
    """Trades of `market_trades` and REST pages, quotes of `ticker`, candles of REST pages; never raises."""
    fields = fields_of(value)
    if headers.get("channel") == REST_TRADES:
        return messages.page(fields.elements("trades"), partial(_trade, received=received))
    # the socket's channel of that name sends envelopes of candles that are not over, and is not read
    if headers.get("channel") == CANDLES_CHANNEL and fields.has("candles"):
        return candles.parsed(candles.page_of(headers, VENUE, received), fields.elements("candles"), _candle)
    if fields.has("channel"):
        return _channel(fields, received)
    if not fields.has("type"):
        raise RejectionError(Reason.UNEXPECTED_SHAPE, "an object without a channel")
    if fields.text("type") == "error":
        return Ignored(IGNORED_VENUE_ERROR)
    if fields.text("type") == "ticker":  # without its envelope
        return Parsed((item_of(lambda: _quote(fields, received)),))
    return messages.unknown(fields.text("type"))


def _channel(fields: Fields, received: int) -> Outcome:
    channel = fields.text("channel")
    if channel in _IGNORED:
        return Ignored(_IGNORED[channel])
    if channel not in ("market_trades", "ticker"):
        return messages.unknown(channel)
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


def _trade(element: msgspec.Raw, received: int) -> Trade:
    fields = fields_of(element)
    product_id = messages.product_of(fields, "product_id", VENUE)
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
    product_id = messages.product_of(fields, "product_id", VENUE)
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


def _candle(page: candles.Page, element: msgspec.Raw) -> Candle:
    fields = fields_of(element)
    open_us = candles.closed(page, candles.seconds_us(fields, "start", page.received))
    return candles.candle(page, open_us, fields, volume=candles.total("volume", fields.optional_number("volume")))
