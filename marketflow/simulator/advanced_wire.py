"""Messages of the Advanced Trade feed, in the public fixtures' field order and number style.

It is another door to Coinbase Exchange's books: the same trades under the same ids, one truth. Every message is
written with number 0 where each connection has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from marketflow.simulator.coinbase_wire import MAKER_SIDE
from marketflow.simulator.feed_messages import WireMessage
from marketflow.simulator.market import Event, Heartbeat, Trade
from marketflow.simulator.texts import SIZE_DECIMALS, fixed, rfc3339_us, trimmed

TRADES, TICKER, HEARTBEATS = "market_trades", "ticker", "heartbeats"
CHANNELS = (TRADES, TICKER, HEARTBEATS)
NO_PRODUCT = ""
UNNUMBERED = b'"sequence_num":0,'
# A year is not played: its extremes lie this far around the first price and today's.
YEAR_LOW, YEAR_HIGH = Decimal("0.6"), Decimal("1.7")


def numbered(payload: bytes, number: int) -> bytes:
    """The message under its connection's number; an error has none."""
    head, mark, tail = payload.partition(UNNUMBERED)
    return b'%b"sequence_num":%d,%b' % (head, number, tail) if mark else payload


def envelope(channel: str, sent_us: int, *events: str) -> bytes:
    """A message of these events, not numbered yet; the venue tells nanoseconds."""
    timestamp = f"{rfc3339_us(sent_us)[:-1]}000Z"
    return (
        f'{{"channel":"{channel}","client_id":"","timestamp":"{timestamp}","sequence_num":0,'
        f'"events":[{",".join(events)}]}}'
    ).encode()


def _go_time(moment_us: int) -> str:
    """`2025-12-31T06:00:12.44524Z`: microseconds without trailing zeros."""
    return f"{rfc3339_us(moment_us)[:-1].rstrip('0').rstrip('.')}Z"


def _trade(trade: Trade) -> str:
    return (
        f'{{"product_id":"{trade.listing.product_id}","trade_id":"{trade.trade_id}",'
        f'"price":"{trimmed(trade.price, trade.listing.price_decimals)}",'
        f'"size":"{trimmed(trade.size, SIZE_DECIMALS)}","time":"{_go_time(trade.event_us)}",'
        f'"side":"{MAKER_SIDE[trade.taker_side].upper()}"}}'
    )


def trades_event(trades: Sequence[Trade], event_type: str = "update") -> str:
    """Trades newest first; `side` is the maker's."""
    return f'{{"type":"{event_type}","trades":[{",".join(map(_trade, reversed(trades)))}]}}'


def ticker_event(trade: Trade, event_type: str = "update") -> str:
    """The book after the trade, all of it text; its time is the envelope's."""
    listing, quotes, day = trade.listing, trade.quotes, trade.day
    decimals = listing.price_decimals
    year_low = trimmed(min(day.low, int(listing.start_price * YEAR_LOW)), decimals)
    year_high = trimmed(max(day.high, int(listing.start_price * YEAR_HIGH)), decimals)
    change = Decimal(trade.price - day.open) / day.open * 100
    return (
        f'{{"type":"{event_type}","tickers":[{{"type":"ticker","product_id":"{listing.product_id}",'
        f'"price":"{trimmed(trade.price, decimals)}","volume_24_h":"{trimmed(day.volume, SIZE_DECIMALS)}",'
        f'"low_24_h":"{trimmed(day.low, decimals)}","high_24_h":"{trimmed(day.high, decimals)}",'
        f'"low_52_w":"{year_low}","high_52_w":"{year_high}","price_percent_chg_24_h":"{change:.14f}",'
        f'"best_bid":"{trimmed(quotes.bid, decimals)}","best_bid_quantity":"{fixed(quotes.bid_size, SIZE_DECIMALS)}",'
        f'"best_ask":"{trimmed(quotes.ask, decimals)}","best_ask_quantity":"{fixed(quotes.ask_size, SIZE_DECIMALS)}"'
        "}]}"
    )


def heartbeat(event_us: int, counter: int) -> bytes:
    """Once a second, of no product; the time inside is written as Go prints it, which is no RFC 3339."""
    current_time = f"{rfc3339_us(event_us)[:-1].replace('T', ' ')}000+00:00"
    return envelope(HEARTBEATS, event_us, f'{{"current_time":"{current_time}","heartbeat_counter":{counter}}}')


def subscriptions(subscribed: Mapping[str, Sequence[str]], sent_us: int) -> bytes:
    """All that the connection is subscribed to now."""
    event = msgspec.json.encode({"subscriptions": {name: list(ids) for name, ids in subscribed.items() if ids}})
    return envelope("subscriptions", sent_us, event.decode())


def error(message: str) -> bytes:
    """What a client did wrong; it has no envelope and no number."""
    return msgspec.json.encode({"type": "error", "message": message})


def messages(events: Sequence[Event], first_beat: int) -> list[WireMessage]:
    """The feed of a batch: of each product one message of its trades and one of its last ticker; a beat a second."""
    batches: dict[str, list[Trade]] = {}
    for event in events:
        if isinstance(event, Trade):
            batches.setdefault(event.listing.product_id, []).append(event)
    feed: list[WireMessage] = []
    for product_id, trades in batches.items():
        told = envelope(TRADES, trades[-1].event_us, trades_event(trades))
        feed.append(WireMessage(TRADES, product_id, told, tuple(trade.trade_id for trade in trades)))
        if (last := next((trade for trade in reversed(trades) if trade.ends_order), None)) is not None:
            feed.append(WireMessage(TICKER, product_id, envelope(TICKER, last.event_us, ticker_event(last))))
    for beat, event_us in enumerate(beats(events), first_beat):
        feed.append(WireMessage(HEARTBEATS, NO_PRODUCT, heartbeat(event_us, beat)))
    return feed


def beats(events: Sequence[Event]) -> list[int]:
    """The whole seconds of a batch, which every product tells."""
    return sorted({event.event_us for event in events if isinstance(event, Heartbeat)})
