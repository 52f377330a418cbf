"""Candles of an interval, venue by venue: windows from the start upward, as many candles as a call may bring.

Only candles that lie whole within the interval are asked for; who asks sees to it that its end is in the past. What is
documented of the calls ([D]) and what is not ([?]):

- Coinbase Exchange [D]: /products/{id}/candles?granularity&start&end, ISO times, 300 a call, newest first; an interval
  without a trade is missing. Whether `end` is in the window [?]: asked for is a second before the last candle's end.
- Advanced Trade [D]: /market/products/{id}/candles?start&end&granularity=ONE_MINUTE…, seconds since the epoch, 350 a
  call. Newest first and empty ones missing, as on the exchange [?]; the same care about `end`.
- Binance [D]: /api/v3/klines?symbol&interval&startTime&endTime&limit, ms, 1000 a call, weight 2, oldest first.
- CryptoCompare [D]: /v2/histominute?fsym&tsym&limit&toTs, one more candle than `limit`, the last the one of toTs [?],
  oldest first; minutes of the last seven days alone. Errors come with status 200.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.silver import CANDLE_INTERVALS_S
from marketflow.venues import binance, coinbase_advanced, coinbase_exchange, cryptocompare
from marketflow.venues.history_walk import Call
from marketflow.venues.id_ranges import Range
from marketflow.venues.time_walk import SECOND_US, Span, TimeWalk
from marketflow.venues.validation import DECODE_ERRORS, RejectionError, elements_of, fields_of, shown, shown_error

GRANULARITIES = {
    **{60: "ONE_MINUTE", 300: "FIVE_MINUTE", 900: "FIFTEEN_MINUTE"},
    **{3_600: "ONE_HOUR", 21_600: "SIX_HOUR", 86_400: "ONE_DAY"},
}
CRYPTOCOMPARE_DAYS = 7


@dataclass(frozen=True, slots=True)
class Window:
    """Candles that open at `first_s`, `last_s` and between, `length_s` each."""

    product_id: str
    interval: str
    length_s: int
    first_s: int
    last_s: int

    @property
    def count(self) -> int:
        """How many there can be."""
        return (self.last_s - self.first_s) // self.length_s + 1


@dataclass(frozen=True, slots=True)
class CandleHistory:
    """One venue's candles. `address` is the key of settings.venue_urls, `weight_per_s` what may be spent there.

    `opens` gives the opening second of every candle of a page, in the page's order; ValueError where it is none.
    `days` is how far back the venue goes, where that is little; `least` are the fewest candles that a call brings, the
    ones asked for being the last of them.
    """

    venue: str
    address: str
    channel: str
    weight_per_s: float
    weight: int
    limit: int
    newest_first: bool
    request: Callable[[Window], str]
    opens: Callable[[bytes], list[int]]
    intervals: tuple[str, ...] = tuple(CANDLE_INTERVALS_S)
    days: int | None = None
    least: int = 1

    def spacing_s(self, weight: int) -> float:
        """Seconds to wait after a call of that weight."""
        return weight / self.weight_per_s


def _query(path: str, query: Mapping[str, object]) -> str:
    return f"{path}?{urlencode(sorted((name, str(value)) for name, value in query.items()))}"


def _iso(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _exchange_request(window: Window) -> str:
    name = PRODUCTS[window.product_id].names[coinbase_exchange.VENUE]
    start, end = _iso(window.first_s), _iso(window.last_s + window.length_s - 1)
    return _query(f"/products/{name}/candles", {"granularity": window.length_s, "start": start, "end": end})


def _advanced_request(window: Window) -> str:
    name = PRODUCTS[window.product_id].names[coinbase_advanced.VENUE]
    query = {"start": window.first_s, "end": window.last_s + window.length_s - 1}
    return _query(f"/market/products/{name}/candles", {**query, "granularity": GRANULARITIES[window.length_s]})


def _binance_request(window: Window) -> str:
    query = {"symbol": PRODUCTS[window.product_id].names[binance.VENUE], "interval": window.interval}
    times = {"startTime": window.first_s * 1_000, "endTime": (window.last_s + window.length_s) * 1_000 - 1}
    return _query("/api/v3/klines", {**query, **times, "limit": window.count})


def _cryptocompare_request(window: Window) -> str:
    product = PRODUCTS[window.product_id]
    query = {"fsym": product.base, "tsym": product.quote, "limit": max(1, window.count - 1), "toTs": window.last_s}
    return _query("/v2/histominute", query)


def _whole(number: int, unit: int) -> int:
    if number % unit:
        raise ValueError(f"a candle opens at {number}, which is no whole second")
    return number // unit


def _array_opens(value: bytes, unit: int) -> list[int]:
    rows = [elements_of(bytes(row)) for row in elements_of(value)]
    if not all(rows):
        raise ValueError("a candle without an opening time")
    return [_whole(int(bytes(row[0])), unit) for row in rows]


def _advanced_opens(value: bytes) -> list[int]:
    return [int(fields_of(one).text("start")) for one in fields_of(value).elements("candles")]


def _cryptocompare_opens(value: bytes) -> list[int]:
    page = fields_of(value)
    if page.text("Response") != "Success":
        raise ValueError(f"the venue says {shown(page.text('Message'))}")
    return [fields_of(one).integer("time") for one in page.object("Data").elements("Data")]


CANDLE_HISTORIES: dict[str, CandleHistory] = {
    history.venue: history
    for history in (
        CandleHistory(
            venue=coinbase_exchange.VENUE,
            address="coinbase_rest",
            channel=coinbase_exchange.CANDLES_CHANNEL,
            weight_per_s=5.0,
            weight=1,
            limit=300,
            newest_first=True,
            request=_exchange_request,
            opens=lambda value: _array_opens(value, 1),
        ),
        CandleHistory(
            venue=coinbase_advanced.VENUE,
            address="coinbase_advanced_rest",
            channel=coinbase_advanced.CANDLES_CHANNEL,
            weight_per_s=5.0,
            weight=1,
            limit=350,
            newest_first=True,
            request=_advanced_request,
            opens=_advanced_opens,
        ),
        CandleHistory(
            venue=binance.VENUE,
            address="binance_rest",
            channel=binance.CANDLES_CHANNEL,
            weight_per_s=6_000 / 60 / 3,
            weight=2,
            limit=1_000,
            newest_first=False,
            request=_binance_request,
            opens=lambda value: _array_opens(value, 1_000),
        ),
        CandleHistory(
            venue=cryptocompare.VENUE,
            address="cryptocompare_rest",
            channel=cryptocompare.CANDLES_CHANNEL,
            weight_per_s=2.0,
            weight=1,
            limit=2_000,
            newest_first=False,
            request=_cryptocompare_request,
            opens=_cryptocompare_opens,
            intervals=("1m",),
            days=CRYPTOCOMPARE_DAYS,
            least=2,
        ),
    )
}


class CandleWalk(TimeWalk):
    """Windows from the start upward. The cursor is the opening second of the next candle."""

    upward = True

    def __init__(self, history: CandleHistory, interval: str, span: Span, cursor: str | None = None) -> None:
        super().__init__(history.venue, span, cursor)
        self._history, self._interval = history, interval
        self._length_s = CANDLE_INTERVALS_S[interval]
        length_us = self._length_s * SECOND_US
        first_s = -(-span.start_us // length_us) * self._length_s
        self._past_s = span.end_us // length_us * self._length_s
        self._next_s = first_s if cursor is None else int(cursor)
        left = max(0, (self._past_s - self._next_s) // self._length_s)
        self.estimate = -(-left // history.limit)
        self._window: Window | None = None
        self.call = self._next()

    def _next(self) -> Call | None:
        last_s = min(self._past_s, self._next_s + self._history.limit * self._length_s) - self._length_s
        if last_s < self._next_s:
            return None
        self._window = Window(self.span.product_id, self._interval, self._length_s, self._next_s, last_s)
        asked: Range = (self._next_s, last_s)
        return Call(self._history.request(self._window), self._window.count, self._history.weight, window=asked)

    def read(self, value: bytes) -> None:
        """Take a page."""
        call, window = self._call_taken(), self._window
        assert call.window is not None
        assert window is not None
        try:
            opens = self._history.opens(value)
        except RejectionError as rejection:
            raise self._lie(rejection.detail) from None
        except DECODE_ERRORS as error:
            raise self._lie(shown_error(error)) from None
        except ValueError as error:
            raise self._lie(str(error)) from None
        ascending = opens[::-1] if self._history.newest_first else opens
        self._judge(ascending[-window.count :] if window.count < self._history.least else ascending, window)
        self.items += len(opens)
        self._next_s = window.last_s + self._length_s
        self.cursor, self.reached_us = str(self._next_s), self._next_s * SECOND_US
        self.call = self._next()

    def _judge(self, opens: list[int], window: Window) -> None:
        before = None
        for open_s in opens:
            if open_s % self._length_s:
                raise self._lie(f"a candle opens at {open_s}, which is not on the grid of {self._interval}")
            if not window.first_s <= open_s <= window.last_s:
                raise self._lie(f"the candle of {open_s} came, {window.first_s} to {window.last_s} were asked for")
            if before is not None and open_s <= before:
                raise self._lie(f"the candle of {open_s} comes after that of {before}: the page goes back")
            before = open_s
