"""Messages of the Coinbase Exchange feed and items of its REST, in the captures' field order and number style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from marketflow.simulator.feed_messages import WireMessage
from marketflow.simulator.market import Event, Heartbeat, Trade
from marketflow.simulator.randomness import stable_number, stable_uuid
from marketflow.simulator.texts import SIZE_DECIMALS, fixed, rfc3339_us, trimmed

CHANNELS = ("matches", "ticker", "heartbeat")
MAKER_SIDE = {"buy": "sell", "sell": "buy"}
# A real month is not played: the other 29 days of volume_30d are this many typical orders.
MONTH_ORDERS = 5_000_000


def match(trade: Trade, seed: int, message_type: str = "match") -> bytes:
    """`match` or `last_match`; `side` is the maker's. Order ids follow from the trade, so a restart repeats them."""
    product_id = trade.listing.product_id
    return (
        f'{{"type":"{message_type}","trade_id":{trade.trade_id},'
        f'"maker_order_id":"{stable_uuid(seed, "maker", product_id, trade.trade_id)}",'
        f'"taker_order_id":"{stable_uuid(seed, "taker", product_id, trade.event_us, trade.taker_side)}",'
        f'"side":"{MAKER_SIDE[trade.taker_side]}","size":"{trimmed(trade.size, SIZE_DECIMALS)}",'
        f'"price":"{trimmed(trade.price, trade.listing.price_decimals)}","product_id":"{product_id}",'
        f'"sequence":{trade.sequence},"time":"{rfc3339_us(trade.event_us)}"}}'
    ).encode()


def ticker(trade: Trade) -> bytes:
    """The book after the trade, under the trade's sequence; `side` is the taker's."""
    decimals, quotes, day = trade.listing.price_decimals, trade.quotes, trade.day
    volume_30d = day.volume + trade.listing.typical_order * MONTH_ORDERS
    return (
        f'{{"type":"ticker","sequence":{trade.sequence},"product_id":"{trade.listing.product_id}",'
        f'"price":"{trimmed(trade.price, decimals)}","open_24h":"{trimmed(day.open, decimals)}",'
        f'"volume_24h":"{fixed(day.volume, SIZE_DECIMALS)}","low_24h":"{trimmed(day.low, decimals)}",'
        f'"high_24h":"{trimmed(day.high, decimals)}","volume_30d":"{fixed(volume_30d, SIZE_DECIMALS)}",'
        f'"best_bid":"{fixed(quotes.bid, decimals)}","best_bid_size":"{fixed(quotes.bid_size, SIZE_DECIMALS)}",'
        f'"best_ask":"{fixed(quotes.ask, decimals)}","best_ask_size":"{fixed(quotes.ask_size, SIZE_DECIMALS)}",'
        f'"side":"{trade.taker_side}","time":"{rfc3339_us(trade.event_us)}","trade_id":{trade.trade_id},'
        f'"last_size":"{trimmed(trade.size, SIZE_DECIMALS)}"}}'
    ).encode()


def heartbeat(beat: Heartbeat) -> bytes:
    """Once a second and product."""
    return (
        f'{{"type":"heartbeat","last_trade_id":{beat.last_trade_id},"product_id":"{beat.listing.product_id}",'
        f'"sequence":{beat.sequence},"time":"{rfc3339_us(beat.event_us)}"}}'
    ).encode()


def subscriptions(subscribed: Mapping[str, Sequence[str]]) -> bytes:
    """All that the connection is subscribed to now."""
    return msgspec.json.encode(
        {
            "type": "subscriptions",
            "channels": [
                {"name": channel, "product_ids": list(products), "account_ids": None}
                for channel, products in subscribed.items()
                if products
            ],
        }
    )


def error(message: str, reason: str) -> bytes:
    """What a client did wrong."""
    return msgspec.json.encode({"type": "error", "message": message, "reason": reason})


def messages(events: Sequence[Event], seed: int) -> list[WireMessage]:
    """The feed of a batch of events. A sweep has one ticker, sent beside its last match: in one of four before it."""
    feed: list[WireMessage] = []
    for event in events:
        product_id = event.listing.product_id
        if isinstance(event, Heartbeat):
            feed.append(WireMessage("heartbeat", product_id, heartbeat(event)))
            continue
        trade = WireMessage("matches", product_id, match(event, seed), (event.trade_id,))
        if not event.ends_order:
            feed.append(trade)
            continue
        quote = WireMessage("ticker", product_id, ticker(event))
        feed.extend((quote, trade) if stable_number(seed, event.sequence, below=4) == 0 else (trade, quote))
    return feed
