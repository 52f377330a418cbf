"""Candles of every product, folded minute by minute from the truth file as far as it is synced."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

import msgspec

from marketflow.simulator.day import MINUTE_US
from marketflow.simulator.history import TradeHistory
from marketflow.simulator.truth import TruthFile, TruthTrade

MINUTE_S = 60
READ_BYTES = 4 * 1024**2
Result = TypeVar("Result")

_decode = msgspec.json.Decoder(TruthTrade).decode


@dataclass(slots=True)
class Candle:
    """Trades of one span. `amount` is volume in the quote currency; the taker's figures are those of taker buys.

    A candle without trades has the price before it, no volume and no ids.
    """

    start_s: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    first_id: int = -1
    last_id: int = -1
    volume: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)
    taker_volume: Decimal = Decimal(0)
    taker_amount: Decimal = Decimal(0)

    @property
    def count(self) -> int:
        """How many trades; ids are contiguous."""
        return self.last_id - self.first_id + 1 if self.first_id >= 0 else 0

    def add(self, trade: TruthTrade) -> None:
        """Take the next trade."""
        price, size = Decimal(trade.price), Decimal(trade.size)
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.first_id = trade.trade_id if self.first_id < 0 else self.first_id
        self.last_id = trade.trade_id
        self.volume += size
        self.amount += price * size
        if trade.taker_side == "buy":
            self.taker_volume += size
            self.taker_amount += price * size

    def merge(self, later: Candle) -> None:
        """Take the candle that follows."""
        self.high, self.low, self.close = max(self.high, later.high), min(self.low, later.low), later.close
        self.first_id = later.first_id if self.first_id < 0 else self.first_id
        self.last_id = later.last_id
        self.volume += later.volume
        self.amount += later.amount
        self.taker_volume += later.taker_volume
        self.taker_amount += later.taker_amount


def of_trades(trades: Iterable[TruthTrade], start_s: int) -> Candle | None:
    """One candle of trades, oldest first; None without any."""
    candle: Candle | None = None
    for trade in trades:
        if candle is None:
            price = Decimal(trade.price)
            candle = Candle(start_s, price, price, price, price)
        candle.add(trade)
    return candle


def merged(candles: Iterable[Candle], seconds: int) -> list[Candle]:
    """Candles of `seconds`, oldest first; a span without a trade has none."""
    wide: list[Candle] = []
    for candle in candles:
        start_s = candle.start_s - candle.start_s % seconds
        if wide and wide[-1].start_s == start_s:
            wide[-1].merge(candle)
        else:
            wide.append(replace(candle, start_s=start_s))
    return wide


def joined(candles: Sequence[Candle]) -> Candle | None:
    """All of them as one; None of none."""
    if not candles:
        return None
    one = replace(candles[0])
    for candle in candles[1:]:
        one.merge(candle)
    return one


def filled(candles: Sequence[Candle], seconds: int, last_start_s: int) -> list[Candle]:
    """The same with a flat candle for every span without a trade, up to and with the one at `last_start_s`."""
    whole: list[Candle] = []
    for candle in candles:
        whole.extend(_flat(whole, seconds, candle.start_s))
        whole.append(candle)
    whole.extend(_flat(whole, seconds, last_start_s + seconds))
    return whole


def _flat(whole: Sequence[Candle], seconds: int, until_s: int) -> list[Candle]:
    if not whole:
        return []
    close = whole[-1].close
    starts = range(whole[-1].start_s + seconds, until_s, seconds)
    return [Candle(start_s, close, close, close, close) for start_s in starts]


class Minutes:
    """One-minute candles of all that is indexed. What was traded before the index began is in no candle."""

    def __init__(self, history: TradeHistory, file: TruthFile) -> None:
        indexed = {name: each for name, each in history.products.items() if each.newest_id is not None}
        starts = [product.span(product.first_trade_id, product.first_trade_id)[0] for product in indexed.values()]
        self._offset = min(starts, default=file.written_bytes)
        self._file = file
        self._lock = asyncio.Lock()
        self._candles: dict[str, list[Candle]] = {name: [] for name in history.listings}
        self.last_trade: dict[str, TruthTrade] = {}
        # a product whose first trades are not indexed begins in the middle of a minute, of which no candle is told
        self._cut = {
            name for name, each in indexed.items() if each.first_trade_id > history.listings[name].first_trade_id
        }
        self._cut_minutes: dict[str, int] = {}

    async def read(self, work: Callable[[], Result]) -> Result:
        """Catch up with the truth, off the loop, then do `work` while nothing changes."""
        async with self._lock:
            await asyncio.to_thread(self._catch_up)
            return work()

    def between(self, product_id: str, start_s: int, end_s: int) -> list[Candle]:
        """The minutes that have a trade and start within [start_s, end_s], oldest first."""
        candles = self._candles[product_id]
        first = bisect_left(candles, start_s, key=lambda candle: candle.start_s)
        return candles[first : bisect_right(candles, end_s, key=lambda candle: candle.start_s)]

    def before(self, product_id: str, start_s: int) -> Candle | None:
        """The last minute with a trade that starts before `start_s`."""
        candles = self._candles[product_id]
        place = bisect_left(candles, start_s, key=lambda candle: candle.start_s)
        return candles[place - 1] if place else None

    def _catch_up(self) -> None:
        end = self._file.synced_bytes
        while self._offset < end:
            chunk = self._file.read(self._offset, min(end, self._offset + READ_BYTES))
            whole = chunk.rfind(b"\n") + 1
            for line in chunk[:whole].splitlines():
                self._take(_decode(line))
            self._offset += whole

    def _take(self, trade: TruthTrade) -> None:
        candles = self._candles.get(trade.product_id)
        if candles is None:
            return
        self.last_trade[trade.product_id] = trade
        start_s = trade.event_us // MINUTE_US * MINUTE_S
        if trade.product_id in self._cut and self._cut_minutes.setdefault(trade.product_id, start_s) == start_s:
            return
        if not candles or candles[-1].start_s != start_s:
            price = Decimal(trade.price)
            candles.append(Candle(start_s, price, price, price, price))
        candles[-1].add(trade)
