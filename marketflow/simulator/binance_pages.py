"""Items of Binance's REST, in the documentation's field order and number style: eight decimals as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from marketflow.simulator.book import BestQuotes
from marketflow.simulator.listings import Listing
from marketflow.simulator.minutes import Candle
from marketflow.simulator.page_faults import MILLISECONDS, ItemShape
from marketflow.simulator.texts import SIZE_DECIMALS, fixed
from marketflow.simulator.truth import TruthTrade

TRADE = ItemShape(price="price", size="qty", time="time", clock=MILLISECONDS, is_trade=True)
TICKER = ItemShape(price="lastPrice", time="closeTime", clock=MILLISECONDS)
KLINE = ItemShape(price=4, size=5, time=0, clock=MILLISECONDS)
INTERVALS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86_400}
DAY_MS = 86_400_000


def eight(amount: Decimal) -> str:
    """As the exchange prints every amount."""
    return f"{amount:.8f}"


def trade(fact: TruthTrade) -> bytes:
    """One old trade; a taker who sells has met a buyer who was there before."""
    price, size = Decimal(fact.price), Decimal(fact.size)
    return msgspec.json.encode(
        {
            "id": fact.trade_id,
            "price": eight(price),
            "qty": eight(size),
            "quoteQty": eight(price * size),
            "time": fact.event_us // 1000,
            "isBuyerMaker": fact.taker_side == "sell",
            "isBestMatch": True,
        }
    )


def kline(candle: Candle, seconds: int) -> bytes:
    """One row of klines; the last column is unused."""
    return msgspec.json.encode(
        [
            candle.start_s * 1000,
            *(eight(price) for price in (candle.open, candle.high, candle.low, candle.close)),
            eight(candle.volume),
            (candle.start_s + seconds) * 1000 - 1,
            eight(candle.amount),
            candle.count,
            eight(candle.taker_volume),
            eight(candle.taker_amount),
            "0",
        ]
    )


class Statistics(NamedTuple):
    """A symbol's last 24 hours at one moment. `day` is None without a trade, `last` without one ever."""

    symbol: str
    listing: Listing
    close_ms: int
    day: Candle | None
    previous_close: Decimal
    last: TruthTrade | None
    quotes: BestQuotes

    @property
    def last_price(self) -> str:
        """The price as told."""
        return eight(Decimal(self.last.price) if self.last else Decimal(0))


def ticker(of: Statistics, kind: str) -> bytes:
    """The 24 hours as FULL or MINI. What nobody traded has zeros, firstId -1 and count 0."""
    zero = Decimal(0)
    day = of.day or Candle(0, zero, zero, zero, zero)
    last = Decimal(of.last_price)
    change = last - day.open if of.day else zero
    percent = 100 * change / day.open if day.open else zero
    prices = {"openPrice": eight(day.open), "highPrice": eight(day.high), "lowPrice": eight(day.low)}
    span = {
        "volume": eight(day.volume),
        "quoteVolume": eight(day.amount),
        "openTime": of.close_ms - DAY_MS,
        "closeTime": of.close_ms,
        "firstId": day.first_id,
        "lastId": day.last_id,
        "count": day.count,
    }
    if kind == "MINI":
        return msgspec.json.encode({"symbol": of.symbol, **prices, "lastPrice": of.last_price, **span})
    quotes, decimals = of.quotes, of.listing.price_decimals
    pad = SIZE_DECIMALS - decimals
    return msgspec.json.encode(
        {
            "symbol": of.symbol,
            "priceChange": eight(change),
            "priceChangePercent": f"{percent:.3f}",
            "weightedAvgPrice": eight(day.amount / day.volume if day.volume else zero),
            "prevClosePrice": eight(of.previous_close),
            "lastPrice": of.last_price,
            "lastQty": eight(Decimal(of.last.size) if of.last else zero),
            "bidPrice": fixed(quotes.bid * 10**pad, SIZE_DECIMALS),
            "bidQty": fixed(quotes.bid_size, SIZE_DECIMALS),
            "askPrice": fixed(quotes.ask * 10**pad, SIZE_DECIMALS),
            "askQty": fixed(quotes.ask_size, SIZE_DECIMALS),
            **prices,
            **span,
        }
    )


def one_or_array(items: Sequence[bytes], is_single: bool) -> bytes:
    """One object where one symbol was asked for, else an array."""
    return items[0] if is_single else b"[" + b",".join(items) + b"]"


def ticker_weight(symbols: Iterable[str] | None) -> int:
    """What a call of ticker/24hr weighs, by the number of symbols that it names."""
    count = 101 if symbols is None else len(list(symbols))
    return 2 if count <= 20 else 40 if count <= 100 else 80
