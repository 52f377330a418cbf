"""The best bid and ask of one product: what a taker order meets."""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

from marketflow.simulator.listings import Listing

Side = Literal["buy", "sell"]
TIGHT_SPREAD = 4e-6  # of the price, typical of a liquid pair; never below one increment
WIDE = 8  # a spread this many times the tight one is quoted anew


class BestQuotes(NamedTuple):
    """The top of the book, integers of the listing's units."""

    bid: int
    bid_size: int
    ask: int
    ask_size: int


class Book:
    """One level each side. A taker buy prints at the ask, a taker sell at the bid; what is eaten moves away."""

    def __init__(self, listing: Listing, price: int, random: Random) -> None:
        self._listing = listing
        self._random = random
        self.bid = self.ask = price
        self.bid_size = self.ask_size = 0
        self.quote_around(float(price))

    @property
    def quotes(self) -> BestQuotes:
        """The top of the book now."""
        return BestQuotes(self.bid, self.bid_size, self.ask, self.ask_size)

    def _level_size(self) -> int:
        return max(1, int(self._listing.typical_level * self._random.lognormvariate(0.0, 1.2)))

    def quote_around(self, fair: float) -> None:
        """Follow the fair price: makers quote anew once it has left the spread, or the spread has become wide."""
        tight = max(1, int(fair * TIGHT_SPREAD))
        if self.bid < fair < self.ask and self.ask - self.bid <= WIDE * tight:
            return
        spread = 1 + int(self._random.expovariate(1.0) * tight)
        self.bid = max(1, int(fair) - spread // 2)
        self.ask = max(self.bid + 1, self.bid + spread)
        self.bid_size, self.ask_size = self._level_size(), self._level_size()

    def quote_at(self, side: Side, price: int, size: int) -> None:
        """Make the book one that a captured trade could have met: `price` on the taker's far side, enough size."""
        if side == "buy":
            self.ask, self.bid = price, min(self.bid, price - 1)
            self.ask_size = max(self.ask_size, size + 1)
        else:
            self.bid, self.ask = price, max(self.ask, price + 1)
            self.bid_size = max(self.bid_size, size + 1)

    def fill(self, side: Side, wanted: int) -> tuple[int, int]:
        """Trade up to `wanted` against one level; (price, size) of the print."""
        step = 1 + int(self._random.expovariate(1.0))
        if side == "buy":
            price, size = self.ask, min(wanted, self.ask_size)
            self.ask_size -= size
            if self.ask_size == 0:
                self.ask, self.ask_size = self.ask + step, self._level_size()
        else:
            price, size = self.bid, min(wanted, self.bid_size)
            self.bid_size -= size
            if self.bid_size == 0:
                # an increment is the least a price can be, and the book never crosses
                self.bid, self.bid_size = max(1, self.bid - step), self._level_size()
                self.ask = max(self.ask, self.bid + 1)
        return price, size
