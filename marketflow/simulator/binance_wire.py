"""Messages of Binance's streams, in the captures' field order and number style: eight decimals, times in ms."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from marketflow.contracts.products import PRODUCTS
from marketflow.simulator.faults import BINANCE
from marketflow.simulator.feed_messages import WireMessage
from marketflow.simulator.market import Event, Trade
from marketflow.simulator.texts import SIZE_DECIMALS, fixed

TRADE, BOOK_TICKER = "trade", "bookTicker"
STREAMS = (TRADE, BOOK_TICKER)
PRICE_DECIMALS = 8

_TIMES = re.compile(rb'("[ET]":-?\d+)')


def symbol(product_id: str) -> str:
    """The venue's own name of a product."""
    return PRODUCTS[product_id].names[BINANCE]


def stream_name(message: WireMessage) -> str:
    """What a combined stream calls the message's stream: the symbol in lower case."""
    return f"{symbol(message.product_id).lower()}@{message.channel}"


def _price(units: int, decimals: int) -> str:
    return fixed(units * 10 ** (PRICE_DECIMALS - decimals), PRICE_DECIMALS)


def trade(event: Trade) -> bytes:
    """One trade; `m` says that the buyer is the maker."""
    time_ms, buyer_is_maker = event.event_us // 1000, "true" if event.taker_side == "sell" else "false"
    return (
        f'{{"e":"trade","E":{time_ms},"s":"{symbol(event.listing.product_id)}","t":{event.trade_id},'
        f'"p":"{_price(event.price, event.listing.price_decimals)}","q":"{fixed(event.size, SIZE_DECIMALS)}",'
        f'"T":{time_ms},"m":{buyer_is_maker},"M":true}}'
    ).encode()


def book_ticker(event: Trade) -> bytes:
    """The book after the trade: no type and no time; `u` is the trade's sequence."""
    quotes, decimals = event.quotes, event.listing.price_decimals
    return (
        f'{{"u":{event.sequence},"s":"{symbol(event.listing.product_id)}",'
        f'"b":"{_price(quotes.bid, decimals)}","B":"{fixed(quotes.bid_size, SIZE_DECIMALS)}",'
        f'"a":"{_price(quotes.ask, decimals)}","A":"{fixed(quotes.ask_size, SIZE_DECIMALS)}"}}'
    ).encode()


def messages(events: Sequence[Event]) -> list[WireMessage]:
    """The streams of a batch: a trade each, and the book once a taker order is done."""
    feed: list[WireMessage] = []
    for event in events:
        if isinstance(event, Trade):
            product_id = event.listing.product_id
            feed.append(WireMessage(TRADE, product_id, trade(event), (event.trade_id,)))
            if event.ends_order:
                feed.append(WireMessage(BOOK_TICKER, product_id, book_ticker(event)))
    return feed


def in_form(message: WireMessage, *, combined: bool, microseconds: bool) -> bytes:
    """The message as a connection of that kind gets it."""
    payload = _TIMES.sub(rb"\g<1>000", message.payload) if microseconds else message.payload
    if combined and not message.bare:
        payload = b'{"stream":"%b","data":%b}' % (stream_name(message).encode(), payload)
    return message.spoiled(payload)


def result(request_id: object, found: object = None) -> bytes:
    """The answer to a request that was understood."""
    return msgspec.json.encode({"result": found, "id": request_id})


def error(code: int, text: str, request_id: object = None) -> bytes:
    """What a client did wrong."""
    return msgspec.json.encode({"error": {"code": code, "msg": text}, "id": request_id})
