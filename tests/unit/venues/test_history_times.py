"""An interval of time brings exactly its trades and the rest of the border pages. The venue is a list of trades."""

from __future__ import annotations

import json
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketflow.errors import HistoryError
from marketflow.venues.history_times import TIME_WALKS
from marketflow.venues.id_search import NEAR_IDS, IdSearch, Point
from marketflow.venues.time_walk import Span, TimeWalk

NOON = datetime(2026, 7, 7, 12, tzinfo=UTC)
NOON_US = int(NOON.timestamp()) * 1_000_000
COINBASE, BINANCE, ADVANCED = "coinbase_exchange", "binance", "coinbase_advanced"
PRODUCT = {COINBASE: "BTC-USD", BINANCE: "BTC-USDT", ADVANCED: "BTC-USD"}
PAGE = 1_000
Trade = tuple[int, int]
Page = list[dict[str, Any]]


def iso(us: int) -> str:
    return (NOON + timedelta(microseconds=us - NOON_US)).isoformat().replace("+00:00", "Z")


def item(venue: str, trade: Trade, **changes: Any) -> dict[str, Any]:
    trade_id, us = trade
    if venue == COINBASE:
        return {"time": iso(us), "trade_id": trade_id, "price": "1.5", "size": "0.2", "side": "buy", **changes}
    if venue == BINANCE:
        return {"id": trade_id, "price": "1.5", "qty": "0.2", "time": us // 1000, "isBuyerMaker": True, **changes}
    told = {"trade_id": str(trade_id), "product_id": "BTC-USD", "price": "1.5", "size": "0.2", "side": "BUY"}
    return {**told, "time": iso(us), **changes}


@dataclass
class Venue:
    """Answers by a venue's documentation, in a market of these trades; `inclusive` is Advanced Trade's `end`."""

    name: str
    trades: Sequence[Trade]
    inclusive: bool = True

    def page(self, query: dict[str, str]) -> Page:
        limit = int(query["limit"])
        if self.name == BINANCE:
            first = int(query.get("fromId", self.trades[-1][0] if self.trades else 0))
            found = [trade for trade in self.trades if trade[0] >= first][:limit]
        elif self.name == COINBASE:
            found = [trade for trade in reversed(self.trades) if trade[0] < int(query.get("after", 10**18))][:limit]
        else:
            start, end = int(query.get("start", 0)), int(query.get("end", 10**12)) + self.inclusive
            found = [t for t in reversed(self.trades) if start <= t[1] // 1_000_000 < end][:limit]
        return [item(self.name, trade) for trade in found]


def id_of(told: dict[str, Any]) -> int:
    return int(told["id"] if "id" in told else told["trade_id"])


@dataclass
class Told:
    """What a walk asked and got: ids page by page, how often it looked, the lies."""

    pages: list[list[int]] = field(default_factory=list)
    looks: int = 0
    lies: list[HistoryError] = field(default_factory=list)

    @property
    def ids(self) -> Counter[int]:
        return Counter(each for page in self.pages for each in page)


def read(walk: TimeWalk, venue: Venue, told: Told, spoil: Callable[[int, Page], Page]) -> None:
    """One call, answered."""
    assert walk.call is not None
    query = dict(parse_qsl(urlsplit(walk.call.request).query))
    was_looking = walk.looking
    page = spoil(len(told.pages), venue.page(query)) if not was_looking else venue.page(query)
    told.looks += was_looking
    if not was_looking:
        told.pages.append([] if page and len(page[0]) == 1 else [id_of(each) for each in page])
    walk.read(json.dumps({"trades": page} if venue.name == ADVANCED else page).encode())


def walked(
    walk: TimeWalk, venue: Venue, spoil: Callable[[int, Page], Page] = lambda _, page: page, most: int = 10**6
) -> Told:
    """Walk to the end, or for that many pages, asking again after a lie as often as a backfill does."""
    told = Told()
    while walk.call is not None and len(told.pages) < most:
        for _ in range(5):
            try:
                read(walk, venue, told, spoil)
            except HistoryError as lie:
                told.lies.append(lie)
            else:
                break
        else:
            raise told.lies[-1]
    return told


@cache
def market(seed: int, count: int, per_second: float, first: int = 1) -> list[Trade]:
    """Contiguous ids; times that stand still, creep and leap, on whole milliseconds as Binance tells them."""
    chance, us, trades = random.Random(seed), NOON_US, []
    for trade_id in range(first, first + count):
        us += chance.choice((0, 0, 1, 1, 1, 6)) * int(1_500 / per_second) * 1_000 // 2
        us += 40_000_000 if chance.random() < 0.001 else 0
        trades.append((trade_id, us))
    return trades


def span(venue: str, start_us: int, end_us: int, trades: Sequence[Trade]) -> Span:
    last_us = trades[-1][1] if trades else NOON_US
    return Span(PRODUCT[venue], start_us, end_us, max(last_us, end_us) + 1_000_000)


@pytest.mark.parametrize("name", TIME_WALKS)
@given(
    seed=st.integers(0, 7),
    count=st.sampled_from((1, 2, 999, 2_500, 8_000)),
    per_second=st.sampled_from((0.2, 5.0, 80.0)),
    first=st.sampled_from((1, 2, 7_654_321)),
    cut=st.tuples(st.floats(-0.2, 1.2), st.floats(0.0, 1.0)),
    inclusive=st.booleans(),
)
@hypothesis_settings(max_examples=25, deadline=None)
def test_an_interval_brings_exactly_its_trades_and_the_rest_of_the_border_pages(
    name: str, seed: int, count: int, per_second: float, first: int, cut: tuple[float, float], inclusive: bool
) -> None:
    trades = market(seed, count, per_second, first)
    length_us = trades[-1][1] - NOON_US
    start_us = NOON_US + int(cut[0] * length_us)
    end_us = start_us + 1 + int(cut[1] * length_us)
    walk = TIME_WALKS[name](span(name, start_us, end_us, trades), None)
    told = walked(walk, Venue(name, trades, inclusive))
    wanted = {trade_id for trade_id, us in trades if start_us <= us < end_us}
    assert wanted <= set(told.ids)
    assert told.looks <= 40
    # a doubt of what the history lacks is the one thing to ask again for
    assert all("history begins" in str(lie) or "no trade from" in str(lie) for lie in told.lies)
    if name == ADVANCED:
        assert_only_borders_of_windows(trades, told, start_us, end_us)
        return
    good = [page for page in told.pages if page]
    assert max(told.ids.values(), default=1) == 1
    assert all(sorted(page) == list(range(min(page), max(page) + 1)) for page in good)
    beyond = [each for each in told.ids if each not in wanted]
    side = (lambda us: us >= end_us) if name == COINBASE else (lambda us: us < start_us)
    times = dict(trades)
    assert sum(side(times[each]) for each in beyond) <= NEAR_IDS
    assert sum(not side(times[each]) for each in beyond) <= PAGE


def assert_only_borders_of_windows(trades: list[Trade], told: Told, start_us: int, end_us: int) -> None:
    times = dict(trades)
    for each in told.ids:
        assert start_us - 1_000_000 < times[each] < end_us + 2_000_000
    twice = {each for page in told.pages if len(page) < PAGE for each in page}
    once = Counter(each for page in told.pages if len(page) < PAGE for each in page)
    seconds = Counter(times[each] // 1_000_000 for each in twice if once[each] > 1)
    # a second that two windows share, where the venue has the last one in
    assert all(once[each] <= 2 for each in twice)
    assert len(seconds) < max(2, len(told.pages))


@pytest.mark.parametrize("name", TIME_WALKS)
@given(seed=st.integers(0, 7), killed_after=st.integers(0, 7))
@hypothesis_settings(max_examples=8, deadline=None)
def test_a_walk_goes_on_from_its_cursor_and_misses_nothing(name: str, seed: int, killed_after: int) -> None:
    trades = market(seed, 8_000, 40.0)
    start_us, end_us = trades[1_300][1], trades[7_100][1]
    venue, asked = Venue(name, trades), span(name, start_us, end_us, trades)
    killed = TIME_WALKS[name](asked, None)
    before = walked(killed, venue, most=killed_after)
    resumed = TIME_WALKS[name](asked, killed.cursor)
    after = walked(resumed, venue)
    assert {trade_id for trade_id, us in trades if start_us <= us < end_us} <= set(before.ids + after.ids)
    if name != ADVANCED:
        assert max((before.ids + after.ids).values()) == 1
    if killed.cursor is not None:
        assert after.looks == 0
        assert resumed.call is None
        assert resumed.done_part == 1.0 or name != COINBASE


@given(
    steps=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**13)), min_size=1, max_size=6),
    at=st.floats(0, 1),
    above=st.booleans(),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_a_search_among_billions_of_ids_looks_at_most_forty_times(
    steps: list[tuple[int, int]], at: float, above: bool
) -> None:
    """The market trades evenly within each step: so many ids in so many µs, from none in years to all at once."""
    ids, times = [1], [NOON_US]
    for count, us in steps:
        ids.append(ids[-1] + 1 + count)
        times.append(times[-1] + us)

    def time_of(trade_id: int) -> int:
        step = max(1, bisect_left(ids, trade_id))
        low, high = ids[step - 1], ids[step]
        return times[step - 1] + (times[step] - times[step - 1]) * (trade_id - low) // (high - low)

    moment = NOON_US + int(at * (times[-1] - NOON_US))
    search, looks = IdSearch(moment, Point(ids[-1], times[-1])), 1
    while search.probe is not None:
        found = Point(search.probe, time_of(search.probe))
        (search.found_above if above else search.found)(found)
        looks += 1
    assert looks <= 40
    assert search.above - search.below <= NEAR_IDS
    assert search.below == 1 or time_of(search.below - 1) < moment
    assert search.above == ids[-1] + 1 or time_of(search.above) >= moment


def test_a_history_that_begins_later_than_asked_is_asked_twice_and_noted() -> None:
    trades = market(1, 3_000, 40.0, 5_000)
    for name, note in ((COINBASE, "the history begins with trade 5000"), (BINANCE, "")):
        asked = span(name, NOON_US - 10**12, trades[1_500][1], trades)
        walk = TIME_WALKS[name](asked, None)
        told = walked(walk, Venue(name, trades))
        assert {trade_id for trade_id, _ in trades[:1_500]} <= set(told.ids)
        assert walk.notes == ([note] if note else ["the history begins with trade 5000"])


def test_a_plan_counts_the_pages_of_what_there_is_however_high_its_ids() -> None:
    trades = market(1, 3_000, 40.0, 700_000_000)
    walk = TIME_WALKS[BINANCE](span(BINANCE, NOON_US - 10**12, trades[-1][1] + 1, trades), None)
    told = walked(walk, Venue(BINANCE, trades))
    assert walk.estimate is not None
    assert abs(walk.estimate - len(told.ids) // 1_000) <= 2


@pytest.mark.parametrize("name", [COINBASE, BINANCE])
def test_ids_that_two_answers_leave_out_are_noted_and_those_of_one_answer_are_asked_for_again(name: str) -> None:
    trades = market(2, 4_000, 40.0)
    asked = span(name, trades[500][1], trades[3_500][1], trades)
    gone = set(range(2_001, 2_004))

    shown: list[int] = []

    def once(number: int, page: Page) -> Page:
        if shown or not gone & {id_of(each) for each in page}:
            return page
        shown.append(number)
        return [each for each in page if id_of(each) not in gone]

    healed = walked(walk := TIME_WALKS[name](asked, None), Venue(name, trades), once)
    assert gone <= set(healed.ids)
    assert (len(healed.lies), walk.notes) == (1, [])
    walk = TIME_WALKS[name](asked, None)
    lacking = walked(walk, Venue(name, [trade for trade in trades if trade[0] not in gone]))
    assert len(lacking.lies) == 1
    assert walk.notes == ["the history leaves out 2001 to 2003 (3 trades)"]
    assert {trade_id for trade_id, _ in trades[501:3_500]} - set(lacking.ids) == gone


LIES: dict[str, tuple[Callable[[str, Page], Page], str]] = {
    "too many": (lambda _, page: [*page, *page, *page], "were asked for"),
    "a twin with other content": (lambda _, page: [page[0] | {"price": "9"}, *page[:-1]], "other content"),
    "times that go back": (
        lambda name, page: (
            [page[0] | {"time": iso(NOON_US) if name != BINANCE else NOON_US // 1000}, *page[1:]]
            if name != BINANCE
            else [*page[:-1], page[-1] | {"time": NOON_US // 1000}]
        ),
        "",
    ),
    "no time at all": (lambda _, page: [each | {"time": "soon"} for each in page], ""),
    "no trades": (lambda _, page: [{"id": "x"} for _ in page], ""),
}


@pytest.mark.parametrize("name", TIME_WALKS)
@pytest.mark.parametrize("lie", LIES)
def test_a_page_that_cannot_be_true_is_named_and_asked_for_again(name: str, lie: str) -> None:
    spoil, said = LIES[lie]
    trades = market(3, 6_000, 40.0)
    start_us, end_us = trades[1_000][1], trades[5_000][1]
    told = walked(
        TIME_WALKS[name](span(name, start_us, end_us, trades), None),
        Venue(name, trades),
        lambda number, page: spoil(name, page) if number == 2 else page,
    )
    (named,) = told.lies
    assert said in named.detail
    assert named.request
    assert {trade_id for trade_id, us in trades if start_us <= us < end_us} <= set(told.ids)


def test_a_second_with_more_than_a_page_is_noted_as_cut_and_the_walk_goes_on() -> None:
    trades = [(trade_id, NOON_US + trade_id * 300) for trade_id in range(1, 20_000)]
    walk = TIME_WALKS[ADVANCED](span(ADVANCED, NOON_US, NOON_US + 6_000_000, trades), None)
    told = walked(walk, Venue(ADVANCED, trades))
    assert walk.call is None
    assert len(walk.notes) == 6
    assert "has more than the 1000 trades of a page: it is cut" in walk.notes[0]
    assert len(told.lies) == 6


@pytest.mark.parametrize(("per_second", "inclusive", "cut"), [(900, True, 0), (450, False, 0), (1_100, True, 5)])
def test_a_second_alone_fills_no_page_where_two_do(per_second: int, inclusive: bool, cut: int) -> None:
    trades = [(each, NOON_US + (each - 1) * 1_000_000 // per_second) for each in range(1, 5 * per_second + 1)]
    walk = TIME_WALKS[ADVANCED](span(ADVANCED, NOON_US, NOON_US + 5_000_000, trades), None)
    told = walked(walk, Venue(ADVANCED, trades, inclusive))
    assert len(walk.notes) == cut
    assert cut or {trade_id for trade_id, _ in trades} == set(told.ids)


def test_a_product_that_never_traded_has_nothing_to_bring() -> None:
    for name, make in TIME_WALKS.items():
        walk = make(span(name, NOON_US, NOON_US + 10**9, []), None)
        told = walked(walk, Venue(name, []))
        assert (told.pages, walk.notes) == ([], ["the venue knows no trade of it"])
