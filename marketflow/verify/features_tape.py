"""What the oracle of trade features reads: trades in order of their ids, and the quote before each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from functools import cache
from operator import mul

DIGITS = Context(prec=80)
QUOTE_AGE_LIMIT_US = 5_000_000


class TooFewTradesError(Exception):
    """The window reaches back before the first trade, or forward beyond the last; or there is no quote."""


@dataclass(frozen=True, slots=True)
class Trade:
    """What features read of one row of silver.trades; `event_us` is microseconds since 1970."""

    trade_id: int
    price: Decimal
    size: Decimal
    taker_side: str
    event_us: int
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Quote:
    """What features read of one row of silver.quotes."""

    event_us: int
    best_bid: Decimal
    best_ask: Decimal
    best_bid_size: Decimal | None = None
    best_ask_size: Decimal | None = None
    sequence: int | None = None


class Book:
    """The trades and quotes of one product; rows are numbered from 0 in order of trade_id."""

    def __init__(self, trades: Iterable[Trade], quotes: Iterable[Quote] = ()) -> None:
        self.trades: Sequence[Trade] = sorted(trades, key=lambda trade: trade.trade_id)
        self.quotes: Sequence[Quote] = tuple(quotes)
        self._logs: dict[int, Decimal] = {}
        self._macd: dict[int, Decimal] = {}
        self._quotes: dict[int, tuple[Quote, str] | None] = {}

    def last(self, row: int, window: int) -> Sequence[Trade]:
        """The window's trades, oldest first, the row's own last."""
        if row - window + 1 < 0:
            raise TooFewTradesError
        return self.trades[row - window + 1 : row + 1]

    def prices(self, row: int, window: int) -> list[Decimal]:
        """Of the window's trades."""
        return [trade.price for trade in self.last(row, window)]

    def sizes(self, row: int, window: int) -> list[Decimal]:
        """Of the window's trades."""
        return [trade.size for trade in self.last(row, window)]

    def change(self, row: int) -> Decimal:
        """The price less the price before."""
        if row < 1:
            raise TooFewTradesError
        return self.trades[row].price - self.trades[row - 1].price

    def log(self, row: int) -> Decimal:
        """Ln of the price over the price before."""
        if row < 1:
            raise TooFewTradesError
        if row not in self._logs:
            self._logs[row] = (self.trades[row].price / self.trades[row - 1].price).ln(Context(prec=40))
        return self._logs[row]

    def macd(self, row: int) -> Decimal:
        """macd_12_26, which its signal reads 128 times."""
        if row not in self._macd:
            prices = self.prices(row, 372)
            self._macd[row] = ewm(prices, span(12)) - ewm(prices, span(26))
        return self._macd[row]

    def is_hole(self, row: int) -> bool:
        """Whether trades are missing before the row."""
        if row < 1:
            raise TooFewTradesError
        return self.trades[row].trade_id - self.trades[row - 1].trade_id > 1

    def quote(self, row: int) -> Quote:
        """The row's quote; without one, TooFewTradesError: every quote feature is null then."""
        return self._quote(row)[0]

    def quote_join(self, row: int) -> str:
        """By what the row's quote was found to be before it: `sequence` or `event_ts`."""
        return self._quote(row)[1]

    def _quote(self, row: int) -> tuple[Quote, str]:
        if row not in self._quotes:
            self._quotes[row] = self._find_quote(self.trades[row])
        found = self._quotes[row]
        if found is None:
            raise TooFewTradesError
        return found

    def _find_quote(self, trade: Trade) -> tuple[Quote, str] | None:
        """The last before the trade: by sequence where both have one, else by time; of one found by each the later."""
        found: list[tuple[Quote, str]] = []
        if trade.sequence is not None:
            lower = [(q.sequence, q.event_us, q) for q in self.quotes if q.sequence is not None]
            lower = [each for each in lower if each[0] < trade.sequence]
            found += [(max(lower, key=lambda each: each[:2])[2], "sequence")] if lower else []
        earlier = [
            quote
            for quote in self.quotes
            if quote.event_us < trade.event_us and (trade.sequence is None or quote.sequence is None)
        ]
        if earlier:
            found.append((max(earlier, key=lambda quote: (quote.event_us, quote.sequence or 0)), "event_ts"))
        # the first of two with the same time, which is the one found by sequence
        newest = max(found, key=lambda each: each[0].event_us, default=None)
        if newest is None or not 0 <= trade.event_us - newest[0].event_us <= QUOTE_AGE_LIMIT_US:
            return None
        return newest


def mean(values: Sequence[Decimal]) -> Decimal:
    """The arithmetic one."""
    return sum(values, Decimal(0)) / len(values)


def span(trades: int) -> Decimal:
    """Q of an exponential mean."""
    return 1 - Decimal(2) / (trades + 1)


@cache
def _weight(decay: Decimal, length: int) -> Decimal:
    with localcontext(DIGITS):
        return sum(weights(decay, length), Decimal(0))


@cache
def weights(decay: Decimal, length: int) -> tuple[Decimal, ...]:
    """q^(length-1) … q^1, 1: the newest last."""
    with localcontext(DIGITS):
        return tuple(decay**age for age in reversed(range(length)))


def ewm(values: Sequence[Decimal], decay: Decimal) -> Decimal:
    """Σ q^i·x(t−i) / Σ q^i over the values, the newest last."""
    weighed = sum(map(mul, weights(decay, len(values)), values), Decimal(0))
    return weighed / _weight(decay, len(values))
