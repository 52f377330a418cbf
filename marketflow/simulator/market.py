"""One product's market: orders arrive, the book answers, trades get contiguous ids. Pure of clock, file and socket."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import exp, log, sqrt
from typing import NamedTuple

from marketflow.simulator.book import BestQuotes, Book, Side
from marketflow.simulator.day import DaySummary, DayWindow
from marketflow.simulator.listings import Listing
from marketflow.simulator.randomness import stream
from marketflow.simulator.tape import TapeTrade
from marketflow.simulator.texts import SECOND_US, SIZE_DECIMALS

LONGEST_SWEEP = 10  # fills of one taker order
# A quiet second has far fewer other order events, so a restarted market's sequence lies above all it ever said.
SEQUENCE_PER_SECOND = 100
MAX_LAG_US = SECOND_US
# A book that follows another is drawn towards it this slowly: some hundredths of a percent lie between the two.
PULL_S = 30.0


class Trade(NamedTuple):
    """One trade. Integers are in the listing's units; `quotes` and `day` are after it, `event_us` is the market's time.

    `ends_order` is false for all but the last fill of a taker order.
    """

    listing: Listing
    trade_id: int
    price: int
    size: int
    taker_side: Side
    event_us: int
    sequence: int
    ends_order: bool
    quotes: BestQuotes
    day: DaySummary


class Heartbeat(NamedTuple):
    """Once a second and product: the last trade_id made, and how far the sequence of all order events has come."""

    listing: Listing
    last_trade_id: int
    sequence: int
    event_us: int


Event = Trade | Heartbeat


class LastTrade(NamedTuple):
    """Where a product stopped, as its truth says."""

    trade_id: int
    price: int
    event_us: int
    sequence: int


class ProductMarket:
    """One product: the tape first, then a random walk with clustered taker orders."""

    def __init__(
        self,
        listing: Listing,
        *,
        seed: int,
        rate: float,
        tape: Sequence[TapeTrade] = (),
        last: LastTrade | None = None,
        day: DayWindow | None = None,
        follows: ProductMarket | None = None,
    ) -> None:
        """`rate` is trades per second; `last` and `day` continue a market that was made before.

        `follows` is a book of the same asset, whose price draws this one's; it has to be advanced first.
        """
        self.listing = listing
        self.next_trade_id = last.trade_id + 1 if last else listing.first_trade_id
        self.sequence = last.sequence if last else listing.first_sequence
        self.event_us = last.event_us if last else 0
        self.day = day or DayWindow()
        self._tape = tape
        self._rate = rate
        self._random = stream(seed, listing.product_id, self.next_trade_id)
        self._other_events = stream(seed, listing.product_id, self.next_trade_id, "heartbeat")
        self._follows = follows
        # where the fair price went since the last advance began, and where it was then
        self._path_us: list[int] = [0]
        self._path: list[float] = []
        start_price = last.price if last else self._units(tape[0].price) if tape else listing.start_price
        self._fair = float(start_price)
        if follows and not last:
            self._fair = max(3.0, self._price_elsewhere(follows._fair))
        self._path.append(self._fair)
        self._book = Book(listing, round(self._fair), self._random)
        self._next_order_us = 0
        self._fills = 1  # of the last taker order

    def _units(self, price: Decimal) -> int:
        return int(price.scaleb(self.listing.price_decimals))

    @property
    def last_trade_id(self) -> int:
        """The newest id; one below the first where nothing was traded yet."""
        return self.next_trade_id - 1

    @property
    def quotes(self) -> BestQuotes:
        """The top of the book now."""
        return self._book.quotes

    @property
    def mid(self) -> float:
        """Middle of the book, in the quote currency."""
        quotes = self._book.quotes
        return float((quotes.bid + quotes.ask) / 2 / 10**self.listing.price_decimals)

    def start(self, now_us: int) -> None:
        """Begin or resume at `now_us`: the next order comes after it, never in the time that was missed."""
        downtime_s = max(0, now_us - self.event_us) // SECOND_US if self.event_us else 0
        self.sequence += SEQUENCE_PER_SECOND * (downtime_s + 1)
        self._next_order_us = max(now_us, self.event_us) + self._spacing_us(1)

    def advance(self, until_us: int) -> list[Trade]:
        """All trades up to and including `until_us`."""
        trades: list[Trade] = []
        del self._path_us[:-1], self._path[:-1]
        while self._next_order_us <= until_us:
            order_us = self._next_order_us
            trades.extend(self._tape_order() if self._tape_left else self._random_order())
            self._path_us.append(order_us)
            self._path.append(self._fair)
            self._next_order_us += self._spacing_us(self._fills)
        return trades

    def forgive_lag(self, now_us: int) -> None:
        """A market that cannot keep its rate trades more slowly; it does not fall into the past."""
        if self._next_order_us < now_us - MAX_LAG_US:
            self._next_order_us = now_us

    def heartbeat(self, event_us: int) -> Heartbeat:
        """The state at a whole second; other people's orders have moved the sequence."""
        self.sequence += self._other_events.randint(1, SEQUENCE_PER_SECOND // 2)
        return Heartbeat(self.listing, self.last_trade_id, self.sequence, event_us)

    @property
    def _tape_left(self) -> bool:
        return self.next_trade_id - self.listing.first_trade_id < len(self._tape)

    @property
    def _next_tape_trade(self) -> TapeTrade:
        return self._tape[self.next_trade_id - self.listing.first_trade_id]

    def _spacing_us(self, fills: int) -> int:
        """Time to the next order; the sum of one exponential per fill keeps the mean rate of trades exact."""
        if self._tape_left:
            return self._next_tape_trade.spacing_us
        return 1 + int(self._random.gammavariate(fills, 1 / self._rate) * SECOND_US)

    def _tape_order(self) -> list[Trade]:
        """The next captured taker order: one fill, and those that share its moment and side."""
        event_us = self._next_order_us
        self.sequence += self._random.randint(2, 60)
        trades: list[Trade] = []
        while True:
            captured = self._next_tape_trade
            price, size = self._units(captured.price), int(captured.size.scaleb(SIZE_DECIMALS))
            self._book.quote_around(float(price))
            self._book.quote_at(captured.taker_side, price, size)
            self._book.fill(captured.taker_side, size)
            trades.append(self._trade(price, size, captured.taker_side, event_us))
            following = self._next_tape_trade if self._tape_left else None
            if not following or following.spacing_us or following.taker_side != captured.taker_side:
                break
        self._fair = float(price)
        self._fills = len(trades)
        return self._end_order(trades)

    def _random_order(self) -> list[Trade]:
        event_us = max(self._next_order_us, self.event_us + 1)
        elapsed_s = (event_us - self.event_us) / SECOND_US if self.event_us else 1.0
        move = self.listing.volatility_per_sqrt_second * sqrt(min(elapsed_s, 60.0)) * self._random.gauss(0.0, 1.0)
        if self._follows:
            move += self._pull(self._follows, elapsed_s)
        self._fair = max(3.0, self._fair * exp(move))
        self._book.quote_around(self._fair)
        self.sequence += self._random.randint(2, 60)
        side: Side = "buy" if self._random.random() < self._buy_share() else "sell"
        wanted = max(1, int(self.listing.typical_order * self._random.lognormvariate(0.0, 1.6)))
        trades: list[Trade] = []
        while wanted > 0 and len(trades) < LONGEST_SWEEP:
            price, size = self._book.fill(side, wanted)
            wanted -= size
            trades.append(self._trade(price, size, side, event_us))
        if len(trades) > 1:
            # an order that ate a level carries news: the fair price goes part of the way
            self._fair += 0.3 * (trades[-1].price - self._fair)
        self._fills = len(trades)
        return self._end_order(trades)

    def _pull(self, follows: ProductMarket, elapsed_s: float) -> float:
        """The way in logs towards the other book's price at this order's moment, however time is cut into steps."""
        place = bisect_right(follows._path_us, self._next_order_us) - 1
        elsewhere = follows._path[max(0, place)]
        distance = log(max(3.0, self._price_elsewhere(elsewhere)) / self._fair)
        return (1.0 - exp(-min(elapsed_s, 60.0) / PULL_S)) * distance

    def _price_elsewhere(self, fair: float) -> float:
        """The followed book's price in this one's units: the two quote currencies keep their first exchange rate."""
        assert self._follows is not None
        return fair * self.listing.start_price / self._follows.listing.start_price

    def _buy_share(self) -> float:
        """Takers lean towards where the fair price lies within the spread."""
        quotes = self._book.quotes
        return 0.25 + 0.5 * min(1.0, max(0.0, (self._fair - quotes.bid) / (quotes.ask - quotes.bid)))

    def _trade(self, price: int, size: int, side: Side, event_us: int) -> Trade:
        trade_id, self.next_trade_id = self.next_trade_id, self.next_trade_id + 1
        event_us -= event_us % self.listing.time_step_us
        self.sequence += 2  # the maker's order being done lies between two fills of a sweep
        self.event_us = event_us
        day = self.day.add(event_us, price, size)
        return Trade(self.listing, trade_id, price, size, side, event_us, self.sequence, False, self._book.quotes, day)

    @staticmethod
    def _end_order(trades: list[Trade]) -> list[Trade]:
        trades[-1] = trades[-1]._replace(ends_order=True)
        return trades


class Market:
    """All products on one clock."""

    def __init__(self, products: Mapping[str, ProductMarket]) -> None:
        """Products in the order they are advanced in: one that follows another comes after it."""
        self.products = dict(products)
        self.paused = False
        self.halted: set[str] = set()
        self._now_us = 0

    def start(self, now_us: int) -> None:
        """Open, or open again after a pause: nothing is traded for the time in between. No product stays halted."""
        self.paused = False
        self.halted.clear()
        self._now_us = max(self._now_us, now_us)
        for product in self.products.values():
            product.start(now_us)

    def halt(self, product_id: str) -> None:
        """This product is not traded; its heartbeats go on, as in a market where nobody buys or sells."""
        self.halted.add(product_id)

    def lift(self, product_id: str, now_us: int) -> None:
        """Trade a halted product again, from now."""
        self.halted.remove(product_id)
        self.products[product_id].start(now_us)

    def step(self, until_us: int) -> list[Event]:
        """Everything up to `until_us` in the order of its time; a heartbeat follows the trades up to its second."""
        events: list[Event] = []
        second_us = (self._now_us // SECOND_US + 1) * SECOND_US
        # after a long stall of the machine only the last second's heartbeat is due
        second_us = max(second_us, until_us // SECOND_US * SECOND_US - SECOND_US)
        while second_us <= until_us:
            events.extend(self._trades(second_us))
            events.extend(product.heartbeat(second_us) for product in self.products.values())
            second_us += SECOND_US
        events.extend(self._trades(until_us))
        self._now_us = max(self._now_us, until_us)
        return events

    def _trades(self, until_us: int) -> list[Trade]:
        if self.paused:
            return []
        traded = [product for product_id, product in self.products.items() if product_id not in self.halted]
        trades = [trade for product in traded for trade in product.advance(until_us)]
        trades.sort(key=lambda trade: trade.event_us)
        return trades
