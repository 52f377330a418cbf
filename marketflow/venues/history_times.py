"""How each venue's trades of an interval are paged: by id where ids are paged by, else by windows of seconds.

- Coinbase Exchange: the id at the interval's end is searched for with pages of one trade (`after=N`), then `after`
  downward, page below page without a hole, until a trade is older than the start.
- Binance: the first id at or after the start is searched for (`fromId`, one trade), then upward past the end.
- Advanced Trade has no ids to page by: windows of whole seconds, the newest first, halved where a page is full.

A cursor is the border of what is done: the lowest id, the next id, the second.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from urllib.parse import urlencode

from marketflow.contracts.products import PRODUCTS
from marketflow.venues import binance, coinbase_advanced, coinbase_exchange, history_advanced, history_binance
from marketflow.venues import history_coinbase as coinbase
from marketflow.venues.history_walk import PAGE_LIMIT, Call
from marketflow.venues.id_ranges import Range
from marketflow.venues.id_search import IdSearch, Point
from marketflow.venues.time_walk import (
    SECOND_US,
    Span,
    Timed,
    TimeWalk,
    in_order,
    left_out,
    shown_left_out,
    time_us,
)
from marketflow.venues.validation import FIRST_EVENT_US, shown

# a venue's clock may be ahead of ours by this much
AHEAD_US = 60 * SECOND_US
FIRST_WINDOW_S = 60
LONGEST_WINDOW_S = 86_400
# of a page: a window is chosen to fill about half, and doubled where it fills less than a quarter
FILLED = PAGE_LIMIT // 2
SPARSE = PAGE_LIMIT // 4


class _ById(TimeWalk):
    """What Coinbase Exchange and Binance have in common: a search for an id, then page after page."""

    def __init__(self, venue: str, span: Span, cursor: str | None) -> None:
        super().__init__(venue, span, cursor)
        self._moment_us = span.start_us if self.upward else span.end_us
        self._search: IdSearch | None = None
        # the search's border is near, not exact: what its first page has at that edge says nothing
        self._edge_known = cursor is not None
        self.looking = cursor is None
        self.call = self._newest() if cursor is None else self._page(int(cursor))

    @abstractmethod
    def _newest(self) -> Call:
        """Ask for the newest trade."""

    @abstractmethod
    def _probe(self, trade_id: int) -> Call:
        """Ask for the one trade near an id."""

    @abstractmethod
    def _page(self, cursor: int) -> Call:
        """Ask for a whole page from there."""

    @abstractmethod
    def _trades(self, value: bytes) -> list[Timed]:
        """The trades of a page; ValueError where it is none."""

    @abstractmethod
    def _found(self, search: IdSearch, trade: Point | None) -> None:
        """Tell the search what a probe found."""

    @abstractmethod
    def _border(self) -> int:
        """Where the search says to begin."""

    @abstractmethod
    def _last_id(self, search: IdSearch) -> int | None:
        """About the id that the pages end with."""

    @abstractmethod
    def _take(self, call: Call, trades: list[Timed]) -> None:
        """Judge a page and go on."""

    def read(self, value: bytes) -> None:
        """Take an answer."""
        call = self._call_taken()
        try:
            if self.looking:
                self._look(self._point(value))
                return
            trades = self._trades(value)
        except ValueError as error:
            raise self._lie(str(error)) from None
        self._take(call, in_order(trades, call.limit, self._lie))

    def _look(self, trade: Point | None) -> None:
        """Take the newest trade, or what a probe found."""
        if self._search is not None:
            self._found(self._search, trade)
        elif trade is not None:
            self._search = IdSearch(self._moment_us, trade)
        search = self._search
        if search is None:
            self.looking, self.call = False, None
            self.notes.append("the venue knows no trade of it")
        elif search.probe is not None:
            self.call = self._probe(search.probe)
        else:
            self.looking, self.call = False, self._page(self._border())
            last = self._last_id(search)
            # a history may begin long after the border that a search from id 1 comes to
            first = max(self._border(), search.first_above or 0)
            self.estimate = None if last is None else max(0, abs(first - last)) // PAGE_LIMIT + 1

    def _point(self, value: bytes) -> Point | None:
        """The one trade of a page."""
        call = self._call_taken()
        trades = in_order(self._trades(value), call.limit, self._lie)
        if not trades:
            return None
        trade = trades[-1]
        assert trade.us is not None
        return Point(trade.trade_id, trade.us)

    def _accept(self, trades: list[Timed], cursor: int, reached_us: int | None) -> None:
        self.items += len(trades)
        self.cursor = str(cursor)
        self.reached_us = reached_us if reached_us is not None else self.reached_us
        self._edge_known = True

    def _time(self, us: int | None) -> int | None:
        """None where it cannot be one: before anything was traded, or ahead of now."""
        return us if us is not None and FIRST_EVENT_US <= us <= self.span.now_us + AHEAD_US else None


class CoinbaseTimes(_ById):
    """From the interval's end downward."""

    upward = False

    def __init__(self, span: Span, cursor: str | None = None) -> None:
        super().__init__(coinbase_exchange.VENUE, span, cursor)

    def _newest(self) -> Call:
        return Call(coinbase.newest_request(self.span.product_id), 1)

    def _probe(self, trade_id: int) -> Call:
        return Call(coinbase.request(self.span.product_id, limit=1, after=trade_id + 1), 1)

    def _page(self, cursor: int) -> Call:
        path = coinbase.request(self.span.product_id, limit=PAGE_LIMIT, after=cursor)
        return Call(path, PAGE_LIMIT, cursor=cursor)

    def _trades(self, value: bytes) -> list[Timed]:
        return [Timed(one.trade_id, self._time(time_us(one.content[3])), one.content) for one in coinbase.listed(value)]

    def _found(self, search: IdSearch, trade: Point | None) -> None:
        search.found(trade)

    def _border(self) -> int:
        assert self._search is not None
        return self._search.above

    def _last_id(self, search: IdSearch) -> int | None:
        return search.id_at(self.span.start_us)

    def _take(self, call: Call, trades: list[Timed]) -> None:
        cursor = call.cursor
        assert cursor is not None
        if not trades:
            self._twice(f"the history begins with trade {cursor}")
            self.call = None
            return
        ids = [one.trade_id for one in trades]
        if ids[-1] >= cursor:
            raise self._lie(f"trade {ids[-1]} came, ids below {cursor} were asked for")
        edge = (ids[-1] + 1, cursor - 1)
        holes = left_out(ids, edge if self._edge_known or self._seen_within(edge) else None)
        if holes:
            self._twice(shown_left_out(holes))
        oldest_us = next(one.us for one in trades if one.us is not None)
        self._accept(trades, ids[0], oldest_us)
        self.call = None if oldest_us < self.span.start_us or ids[0] <= 1 else self._page(ids[0])

    def _seen_within(self, edge: Range) -> bool:
        """Whether the search saw a trade where the page has none."""
        points = [] if self._search is None else self._search.points
        return any(edge[0] <= point.trade_id <= edge[1] for point in points)


class BinanceTimes(_ById):
    """From the interval's start upward."""

    upward = True

    def __init__(self, span: Span, cursor: str | None = None) -> None:
        super().__init__(binance.VENUE, span, cursor)

    def _newest(self) -> Call:
        query = {"limit": "1", "symbol": PRODUCTS[self.span.product_id].names[self.venue]}
        return Call(f"/api/v3/trades?{urlencode(query)}", 1, history_binance.WEIGHT)

    def _probe(self, trade_id: int) -> Call:
        return self._from(trade_id, 1)

    def _page(self, cursor: int) -> Call:
        return self._from(cursor, PAGE_LIMIT)

    def _from(self, trade_id: int, limit: int) -> Call:
        path = binance.historical_trades_request(self.span.product_id, trade_id, limit)
        return Call(path, limit, history_binance.WEIGHT, cursor=trade_id)

    def _trades(self, value: bytes) -> list[Timed]:
        return [
            Timed(one.trade_id, self._time(_milliseconds_us(one.content[2])), one.content)
            for one in history_binance.listed(value)
        ]

    def _found(self, search: IdSearch, trade: Point | None) -> None:
        search.found_above(trade)

    def _border(self) -> int:
        assert self._search is not None
        return self._search.below

    def _last_id(self, search: IdSearch) -> int | None:
        return search.id_at(self.span.end_us)

    def _take(self, call: Call, trades: list[Timed]) -> None:
        cursor = call.cursor
        assert cursor is not None
        if not trades:
            self._twice(f"there is no trade from {cursor} on", note=False)
            self.call = None
            return
        ids = [one.trade_id for one in trades]
        if ids[0] < cursor:
            raise self._lie(f"trade {ids[0]} came, ids from {cursor} on were asked for")
        holes = left_out(ids, (cursor, ids[0] - 1) if self._edge_known else None)
        if holes:
            self._twice(shown_left_out(holes))
        if not self._edge_known and ids[0] > cursor:
            self.notes.append(f"the history begins with trade {ids[0]}")
        newest_us = next(one.us for one in reversed(trades) if one.us is not None)
        self._accept(trades, ids[-1] + 1, newest_us)
        self.call = None if newest_us >= self.span.end_us else self._page(ids[-1] + 1)


def _milliseconds_us(number: object) -> int | None:
    return number * 1_000 if isinstance(number, int) else None


class AdvancedTimes(TimeWalk):
    """By windows of seconds, the newest first.

    Whether a window's last second is in it is not documented: both do. Where two seconds fill a page, the first is
    asked for alone, which brings nothing where it is not in.
    """

    upward = False

    def __init__(self, span: Span, cursor: str | None = None) -> None:
        super().__init__(coinbase_advanced.VENUE, span, cursor)
        self._start_s = span.start_us // SECOND_US
        self._end_s = -(-span.end_us // SECOND_US) if cursor is None else int(cursor)
        self._window_s = FIRST_WINDOW_S
        self._lowest_id: int | None = None
        self.looking = cursor is None
        self.call = self._ask(None) if cursor is None else self._next()

    def _ask(self, window: Range | None) -> Call:
        path = history_advanced.request(self.span.product_id, limit=PAGE_LIMIT, window=window)
        return Call(path, PAGE_LIMIT, window=window)

    def _next(self) -> Call | None:
        if self._end_s <= self._start_s:
            return None
        start_s = max(self._start_s, self._end_s - max(1, self._window_s))
        return self._ask((start_s, start_s if self._window_s == 0 else self._end_s))

    def read(self, value: bytes) -> None:
        """Take an answer."""
        call = self._call_taken()
        try:
            trades = in_order(self._trades(value), call.limit, self._lie)
        except ValueError as error:
            raise self._lie(str(error)) from None
        if call.window is None:
            self._looked(trades)
        else:
            self._take(call.window, trades)

    def _trades(self, value: bytes) -> list[Timed]:
        name, items = PRODUCTS[self.span.product_id].names[self.venue], history_advanced.items_of(value)
        other = next((item.product_id for item in items if item.product_id != name), None)
        if other is not None:
            raise ValueError(f"a trade of {shown(other)} came, {name} was asked for")
        return [
            Timed(history_advanced.id_of(item), time_us(item.time), (item.price, item.size, item.side, item.time))
            for item in items
        ]

    def _looked(self, trades: list[Timed]) -> None:
        """How fast the newest trades came says how long a window may be."""
        times = [one.us for one in trades if one.us is not None]
        self.looking = False
        if not times:
            self.call = None
            self.notes.append("the venue knows no trade of it")
            return
        # nothing is looked for after the newest trade
        self._end_s = min(self._end_s, max(times) // SECOND_US + 1)
        span_us = max(SECOND_US, max(times) - min(times))
        if len(trades) > 1:
            self._window_s = min(LONGEST_WINDOW_S, max(1, FILLED * span_us // len(trades) // SECOND_US))
        self.call = self._next()
        self.estimate = max(0, -(-(self._end_s - self._start_s) // self._window_s))

    def _take(self, window: Range, trades: list[Timed]) -> None:
        outside = next((t for t in trades if t.us is None or not window[0] <= t.us // SECOND_US <= window[1]), None)
        if outside is not None:
            raise self._lie(f"trade {outside.trade_id} is not of the seconds {window[0]} to {window[1]}")
        is_full, is_alone = len(trades) >= PAGE_LIMIT, window[0] == window[1]
        ids = [one.trade_id for one in trades]
        if is_full and not is_alone:
            # it may have been cut at either end
            self.items += len(trades)
            self._window_s = (window[1] - window[0]) // 2
            self.call = self._next()
            return
        if is_alone and (is_full or not trades):
            self._twice(f"second {window[0]} has more than the {PAGE_LIMIT} trades of a page: it is cut")
        else:
            edge = (ids[-1] + 1, self._lowest_id - 1) if ids and self._lowest_id is not None else None
            holes = left_out(ids, edge)
            if holes:
                self._twice(shown_left_out(holes))
        self.items += len(trades)
        self._lowest_id = min(ids, default=self._lowest_id)
        if len(trades) < SPARSE:
            self._window_s = min(LONGEST_WINDOW_S, self._window_s * 2)
        self._window_s = max(1, self._window_s)
        self._end_s = window[0]
        self.cursor, self.reached_us = str(self._end_s), self._end_s * SECOND_US
        self.call = self._next()


TIME_WALKS: dict[str, Callable[[Span, str | None], TimeWalk]] = {
    coinbase_exchange.VENUE: CoinbaseTimes,
    coinbase_advanced.VENUE: AdvancedTimes,
    binance.VENUE: BinanceTimes,
}
