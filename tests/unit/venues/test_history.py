"""How REST history is paged, and every way in which a page can lie. The venue is a list of trades with its rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketflow.errors import HistoryError
from marketflow.venues.history import HISTORIES, Wanted, trades_on
from marketflow.venues.history_walk import Walk

NOON = datetime(2026, 7, 7, 12, tzinfo=UTC)
COINBASE, BINANCE, ADVANCED = "coinbase_exchange", "binance", "coinbase_advanced"
PRODUCT = {COINBASE: "BTC-USD", BINANCE: "BTC-USDT", ADVANCED: "BTC-USD"}
Query = dict[str, str]
Page = list[dict[str, Any]]


def at(trade_id: int, per_second: int = 40) -> datetime:
    return NOON + timedelta(seconds=1) * (trade_id / per_second)


def us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def item(venue: str, trade_id: int, **changes: Any) -> dict[str, Any]:
    time, price = at(trade_id).isoformat().replace("+00:00", "Z"), f"{100 + trade_id % 7}.5"
    if venue == COINBASE:
        return {"time": time, "trade_id": trade_id, "price": price, "size": "0.25", "side": "buy", **changes}
    if venue == BINANCE:
        more = {"price": price, "qty": "0.25", "quoteQty": "25", "time": us(at(trade_id)) // 1000}
        return {"id": trade_id, **more, "isBuyerMaker": True, "isBestMatch": True, **changes}
    return {
        **{"trade_id": str(trade_id), "product_id": "BTC-USD", "price": price, "size": "0.25"},
        **{"time": time, "side": "BUY", "bid": "", "ask": "", "exchange": "", **changes},
    }


def answer(venue: str, query: Query, ids: Sequence[int]) -> Page:
    """What the venue gives for a query, by its documentation, in a market of these ids."""
    limit = int(query["limit"])
    if venue == BINANCE:
        return [item(venue, each) for each in ids if each >= int(query["fromId"])][:limit]
    if venue == COINBASE:
        below = [each for each in ids if "after" not in query or each < int(query["after"])]
        return [item(venue, each) for each in reversed(below)][:limit]
    start, end = int(query["start"]), int(query["end"])
    inside = [each for each in ids if start <= at(each).timestamp() < end]
    return [item(venue, each) for each in reversed(inside)][:limit]


def encoded(venue: str, page: Page) -> bytes:
    body = {"trades": page, "best_bid": "1", "best_ask": "2"} if venue == ADVANCED else page
    return json.dumps(body).encode()


def wanted(venue: str, first: int, last: int, **changes: Any) -> Wanted:
    known = {"before_us": us(at(first - 1)), "after_us": us(at(last + 1)), "detected_us": us(at(last + 1))}
    return Wanted(PRODUCT[venue], first, last, **{**known, **changes})


class Told:
    """What a walk asked and got: ids on all pages, the queries, the lies."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.queries: list[Query] = []
        self.lies: list[HistoryError] = []


def walked(
    walk: Walk, venue: str, ids: Sequence[int], spoil: Callable[[int, Page], Page] = lambda _, page: page
) -> Told:
    """Walk to the end; `spoil` changes the page of a call, by its number."""
    told = Told()
    while walk.call is not None:
        assert len(told.queries) < 300
        query = dict(parse_qsl(urlsplit(walk.call.request).query))
        assert urlsplit(walk.call.request).query == "&".join(sorted(urlsplit(walk.call.request).query.split("&")))
        page = spoil(len(told.queries), answer(venue, query, ids))
        told.queries.append(query)
        told.ids |= {int(each["id" if venue == BINANCE else "trade_id"]) for each in page if isinstance(each, dict)}
        try:
            walk.read(encoded(venue, page))
        except HistoryError as lie:
            told.lies.append(lie)
    return told


@pytest.mark.parametrize("venue", HISTORIES)
@given(first=st.integers(2, 6_000), length=st.integers(1, 3_500), newer=st.integers(0, 2_500))
@hypothesis_settings(max_examples=25, deadline=None)
def test_a_walk_brings_every_id_of_a_hole_and_no_lie_is_seen_where_there_is_none(
    venue: str, first: int, length: int, newer: int
) -> None:
    last = first + length - 1
    told = walked(HISTORIES[venue].walk(wanted(venue, first, last)), venue, range(1, last + newer + 2))
    assert told.lies == []
    assert set(range(first, last + 1)) <= told.ids


def test_coinbase_is_asked_for_the_hole_alone_in_pages_of_a_thousand() -> None:
    told = walked(HISTORIES[COINBASE].walk(wanted(COINBASE, 501, 3_000)), COINBASE, range(1, 9_000))
    assert told.queries == [
        {"after": "3001", "limit": "1000"},
        {"after": "2001", "limit": "1000"},
        {"after": "1001", "limit": "500"},
    ]
    assert told.ids == set(range(501, 3_001))
    walk = HISTORIES[COINBASE].walk(wanted(COINBASE, 7, 9))
    assert walk.call is not None
    assert walk.call.request == "/products/BTC-USD/trades?after=10&limit=3"


def test_coinbase_from_the_newest_page_down_where_a_guessed_cursor_is_not_taken() -> None:
    def guess_not_taken(number: int, page: Page) -> Page:
        return [item(COINBASE, each) for each in range(400, 300, -1)] if number == 0 else page

    told = walked(HISTORIES[COINBASE].walk(wanted(COINBASE, 501, 600)), COINBASE, range(1, 2_801), guess_not_taken)
    assert [query.get("after") for query in told.queries] == ["601", None, "1801", "801"]
    assert {query["limit"] for query in told.queries[1:]} == {"1000"}
    assert len(told.lies) == 1
    assert "leaves out 401 to 600" in str(told.lies[0])
    assert "after=601&limit=100" in str(told.lies[0])
    assert set(range(501, 601)) <= told.ids


def test_coinbase_goes_on_by_the_cursor_that_the_venue_gives() -> None:
    walk = HISTORIES[COINBASE].walk(wanted(COINBASE, 1, 1_500))
    walk.read(encoded(COINBASE, [item(COINBASE, each) for each in range(1_500, 500, -1)]), "501")
    assert walk.call is not None
    assert walk.call.request == "/products/BTC-USD/trades?after=501&limit=500"


def test_binance_goes_up_from_the_first_id_at_weight_25() -> None:
    told = walked(HISTORIES[BINANCE].walk(wanted(BINANCE, 501, 1_600)), BINANCE, range(1, 9_000))
    assert told.queries == [
        {"fromId": "501", "limit": "1000", "symbol": "BTCUSDT"},
        {"fromId": "1501", "limit": "100", "symbol": "BTCUSDT"},
    ]
    walk = HISTORIES[BINANCE].walk(wanted(BINANCE, 501, 501))
    assert walk.call is not None
    assert walk.call.weight == 25
    # a third of 6,000 a minute
    assert HISTORIES[BINANCE].spacing_s(25) == pytest.approx(0.75)


def test_advanced_asks_for_whole_seconds_around_the_hole_and_halves_a_window_that_was_cut() -> None:
    hole = wanted(ADVANCED, 4_001, 4_100)
    told = walked(HISTORIES[ADVANCED].walk(hole), ADVANCED, range(1, 9_000))
    start, end = us(at(4_000)) // 10**6 - 1, -(-us(at(4_101)) // 10**6) + 1
    assert told.queries == [{"start": str(start), "end": str(end), "limit": "1000"}]
    # in the older and in the newer half of the window, and never on its first page
    for first in (4_001, 6_501):
        guessed = wanted(ADVANCED, first, first + 99, before_us=None, after_us=None, detected_us=us(at(8_000)))
        told = walked(HISTORIES[ADVANCED].walk(guessed), ADVANCED, range(1, 8_001))
        assert len(told.queries) > 1
        assert told.lies == []
        assert set(range(first, first + 100)) <= told.ids


def test_advanced_names_a_second_that_holds_more_than_a_page() -> None:
    crowded = [item(ADVANCED, each, time="2026-07-07T12:00:10.5Z") for each in range(3_000, 1_500, -1)]
    times = {"before_us": us(NOON) + 10_400_000, "after_us": us(NOON) + 10_600_000, "detected_us": us(NOON)}
    walk = HISTORIES[ADVANCED].walk(Wanted("BTC-USD", 1_600, 2_900, **times))
    told = walked(walk, ADVANCED, (), lambda number, page: crowded[:1000])
    assert any("the page is cut" in str(lie) for lie in told.lies)


def test_advanced_looks_wider_with_every_try() -> None:
    windows = []
    for tries in (0, 1, 2):
        call = HISTORIES[ADVANCED].walk(wanted(ADVANCED, 4_001, 4_100, tries=tries)).call
        assert call is not None
        assert call.window is not None
        windows.append(call.window)
    assert [end - start for start, end in windows] == [5, 7, 11]


LIES = [
    ("a trade in the middle is left out", lambda page: [*page[:4], *page[5:]], "leaves out"),
    ("the ids go back", lambda page: [*page[:4], page[5], page[4], *page[6:]], "the ids go back"),
    ("an id twice with other content", lambda page: [*page[:4], page[3] | {"price": "1"}, *page[4:9]], "and as"),
    ("not a page", lambda page: {"message": "NotFound"}, "asked:"),
    ("not JSON", lambda page: None, "asked:"),
    ("an item without an id", lambda page: [*page[:4], {"price": "1"}, *page[5:]], "item 4 has no trade id"),
    ("nothing", lambda page: [], "asked:"),
    ("more than was asked for", lambda page: page * 101, "were asked for"),
]


@pytest.mark.parametrize("venue", HISTORIES)
@pytest.mark.parametrize(("spoil", "sentence"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
def test_a_page_that_lies_is_named_with_what_was_asked(venue: str, spoil: Callable[[Page], Any], sentence: str) -> None:
    walk = HISTORIES[venue].walk(wanted(venue, 501, 510))
    assert walk.call is not None
    asked = walk.call.request
    page = spoil(answer(venue, dict(parse_qsl(urlsplit(asked).query)), range(1, 600)))
    body = encoded(venue, page) if isinstance(page, list) else json.dumps(page).encode() if page else b"<html>"
    with pytest.raises(HistoryError) as caught:
        walk.read(body)
    assert sentence in str(caught.value)
    assert (caught.value.request, caught.value.product_id) == (asked, PRODUCT[venue])


@pytest.mark.parametrize(
    ("venue", "page", "sentence"),
    [
        (COINBASE, range(511, 501, -1), "trade 511 came, ids below 511 were asked for"),
        (BINANCE, range(500, 510), "trade 500 came, ids from 501 were asked for"),
        (ADVANCED, range(2_000, 1_990, -1), "a trade of second"),
    ],
)
def test_ids_outside_what_was_asked_are_a_lie(venue: str, page: range, sentence: str) -> None:
    walk = HISTORIES[venue].walk(wanted(venue, 501, 510))
    with pytest.raises(HistoryError, match=sentence):
        walk.read(encoded(venue, [item(venue, each) for each in page]))


def test_a_page_of_another_product_is_a_lie_where_pages_say_it() -> None:
    walk = HISTORIES[ADVANCED].walk(wanted(ADVANCED, 501, 510))
    page = [item(ADVANCED, each, product_id="ETH-USD") for each in range(510, 500, -1)]
    with pytest.raises(HistoryError, match="a trade of 'ETH-USD' came, BTC-USD was asked for"):
        walk.read(encoded(ADVANCED, page))


@pytest.mark.parametrize("venue", HISTORIES)
def test_a_history_without_some_ids_says_which_and_brings_the_others(venue: str) -> None:
    gone = {503, 504, 509}
    walk = HISTORIES[venue].walk(wanted(venue, 501, 510))
    told = walked(walk, venue, [each for each in range(1, 700) if each not in gone])
    assert told.lies
    assert walk.absent == [(503, 504), (509, 509)]
    assert set(range(501, 511)) - gone <= told.ids


@pytest.mark.parametrize("venue", [COINBASE, BINANCE])
def test_a_history_without_the_holes_edges_says_so_too(venue: str) -> None:
    walk = HISTORIES[venue].walk(wanted(venue, 501, 503))
    told = walked(walk, venue, [each for each in range(1, 700) if not 501 <= each <= 503])
    assert told.lies
    assert walk.absent == [(501, 503)]


@pytest.mark.parametrize("venue", [COINBASE, BINANCE])
def test_a_history_that_is_behind_or_too_short_is_named_and_nothing_is_called_absent(venue: str) -> None:
    behind = HISTORIES[venue].walk(wanted(venue, 501, 510))
    told = walked(behind, venue, range(1, 500))
    assert told.lies
    assert behind.absent == []
    if venue == COINBASE:
        short = HISTORIES[venue].walk(wanted(venue, 501, 510))
        told = walked(short, venue, range(506, 600))
        assert any("ends at trade 506" in str(lie) for lie in told.lies)
        assert short.absent == []


@pytest.mark.parametrize(
    ("venue", "request_", "value", "newest"),
    [
        (COINBASE, "/products/BTC-USD/trades?limit=1", [item(COINBASE, 77)], 77),
        (
            BINANCE,
            "/api/v3/ticker/24hr?symbol=BTCUSDT&type=MINI",
            {"symbol": "BTCUSDT", "lastPrice": "4.0", "firstId": 28385, "lastId": 28460, "count": 76},
            28460,
        ),
        (
            ADVANCED,
            "/market/products/BTC-USD/ticker?limit=1",
            {"trades": [item(ADVANCED, 77)], "best_bid": "1"},
            77,
        ),
    ],
)
def test_the_newest_id_is_asked_for_and_read(venue: str, request_: str, value: Any, newest: int) -> None:
    history = HISTORIES[venue]
    assert history.newest_request(PRODUCT[venue]) == request_
    assert history.newest_id(PRODUCT[venue], json.dumps(value).encode()) == newest
    for broken in (b"", b"[]", b"{}", b'{"trades":[]}', b"null"):
        with pytest.raises(HistoryError, match=venue):
            history.newest_id(PRODUCT[venue], broken)


@pytest.mark.parametrize("venue", HISTORIES)
def test_what_silver_takes_of_a_page_is_what_counts_as_published(venue: str) -> None:
    bad = {"price": "-1"}
    page = [item(venue, 505), item(venue, 504, **bad), item(venue, 503)]
    headers = {
        **{"venue": venue, "channel": HISTORIES[venue].channel, "product_id": PRODUCT[venue]},
        **{"received_at": str(us(at(600))), "http_status": "200"},
    }
    assert trades_on(headers, encoded(venue, page), PRODUCT[venue]) == [505, 503]
    assert trades_on(headers | {"http_status": "500"}, encoded(venue, page), PRODUCT[venue]) == []
    assert trades_on(headers, b"<html>", PRODUCT[venue]) == []
