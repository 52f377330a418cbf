"""Candles are asked for in whole windows, each once, by the venue's own words; pages that lie are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from marketflow.contracts.records import Candle, Parsed
from marketflow.contracts.silver import CANDLE_INTERVALS_S
from marketflow.errors import HistoryError
from marketflow.venues import parse
from marketflow.venues.history_candles import CANDLE_HISTORIES, CandleWalk
from marketflow.venues.time_walk import Span

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())
PRODUCT = dict.fromkeys(CANDLE_HISTORIES, "BTC-USD") | {"binance": "BTC-USDT"}
# asks for so many candles at most, has the newest first, and tells minutes without a trade
RULES = {
    "coinbase_exchange": (300, True),
    "coinbase_advanced": (350, True),
    "binance": (1_000, False),
    "cryptocompare": (2_000, False),
}
ADVANCED_NAMES = {"ONE_MINUTE": 60, "FIVE_MINUTE": 300, "FIFTEEN_MINUTE": 900, "ONE_HOUR": 3_600}


def asked(venue: str, call: str, traded: Callable[[int], bool]) -> list[int]:
    """Opening seconds that the venue tells, oldest first, by its documentation; refused where it is too much."""
    query = dict(parse_qsl(urlsplit(call).query))
    if venue == "coinbase_exchange":
        step, first, last = int(query["granularity"]), *(seconds(query[name]) for name in ("start", "end"))
    elif venue == "coinbase_advanced":
        step, first, last = ADVANCED_NAMES[query["granularity"]], int(query["start"]), int(query["end"])
    elif venue == "binance":
        step = CANDLE_INTERVALS_S[query["interval"]]
        first, last = int(query["startTime"]) // 1_000, int(query["endTime"]) // 1_000
    else:
        step, last = 60, int(query["toTs"])
        first = last - int(query["limit"]) * 60
    opens = [second for second in range(-(-first // step) * step, last + 1, step) if traded(second)]
    assert (last - first) // step + 1 <= RULES[venue][0]
    assert int(query.get("limit", 1)) <= RULES[venue][0]
    return opens


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def page(venue: str, opens: list[int]) -> bytes:
    """In the venue's own shape and order."""
    body: Any
    ordered = opens[::-1] if RULES[venue][1] else opens
    if venue == "coinbase_exchange":
        body = [[second, 1, 3, 2, 2.5, 10.5] for second in ordered]
    elif venue == "coinbase_advanced":
        rest = {"low": "1", "high": "3", "open": "2", "close": "2.5", "volume": "10.5"}
        body = {"candles": [{"start": str(second), **rest} for second in ordered]}
    elif venue == "binance":
        body = [
            [second * 1000, "2", "3", "1", "2.5", "10.5", second * 1000 + 59_999, "26", 4, "0", "0", "0"]
            for second in ordered
        ]
    else:
        rest = {"low": 1, "high": 3, "open": 2, "close": 2.5, "volumefrom": 10.5, "volumeto": 26}
        body = {"Response": "Success", "Data": {"Data": [{"time": second, **rest} for second in ordered]}}
    return json.dumps(body).encode()


def span(venue: str, start_s: float, end_s: float) -> Span:
    return Span(PRODUCT[venue], int(start_s * 1e6), int(end_s * 1e6), int(end_s * 1e6) + 60_000_000)


def walked(walk: CandleWalk, venue: str, traded: Callable[[int], bool] = lambda _: True) -> list[list[int]]:
    pages = []
    while walk.call is not None:
        pages.append(asked(venue, walk.call.request, traded))
        walk.read(page(venue, pages[-1]))
    return pages


@pytest.mark.parametrize("venue", CANDLE_HISTORIES)
@given(
    start=st.integers(-(10**6), 0),
    length=st.integers(1, 400_000),
    interval=st.sampled_from(("1m", "5m", "1h")),
    quiet=st.integers(2, 9),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_every_whole_candle_of_an_interval_is_asked_for_once_and_none_beyond_it(
    venue: str, start: int, length: int, interval: str, quiet: int
) -> None:
    history = CANDLE_HISTORIES[venue]
    interval = interval if interval in history.intervals else "1m"
    step, first, past = CANDLE_INTERVALS_S[interval], NOON_S + start, NOON_S + start + length

    def traded(second: int) -> bool:
        return venue in ("binance", "cryptocompare") or (second // step) % quiet != 0

    walk = CandleWalk(history, interval, span(venue, first, past))
    planned = walk.estimate
    pages = walked(walk, venue, traded)
    wanted = [s for s in range(first, past) if s % step == 0 and s + step <= past and traded(s)]
    told = sorted(second for one in pages for second in one)
    if venue == "cryptocompare" and told != wanted:
        # its least call brings two: the one before comes again
        assert len(pages[-1]) == 2
        told.remove(pages[-1][0])
    assert told == wanted
    assert planned == len(pages) == -(-(max(0, past // step - -(-first // step))) // RULES[venue][0])


@pytest.mark.parametrize("venue", CANDLE_HISTORIES)
def test_a_page_that_was_asked_for_is_read_by_the_venues_parser(venue: str) -> None:
    """Channel and interval are the parser's own words: silver finds the candles."""
    history = CANDLE_HISTORIES[venue]
    walk = CandleWalk(history, "1m", span(venue, NOON_S, NOON_S + 180))
    assert walk.call is not None
    headers = {"venue": venue, "channel": history.channel, "product_id": PRODUCT[venue], "interval": "1m"}
    told = {**headers, "http_status": "200", "received_at": str((NOON_S + 600) * 1_000_000), "origin": "backfill"}
    outcome = parse(told, page(venue, asked(venue, walk.call.request, lambda _: True)))
    assert isinstance(outcome, Parsed)
    candles = sorted((one for one in outcome.items if isinstance(one, Candle)), key=lambda one: one.open_us)
    assert len(candles) == len(outcome.items)
    assert [one.open_us // 1_000_000 for one in candles][-3:] == [NOON_S, NOON_S + 60, NOON_S + 120]
    assert {(one.venue, one.product_id, one.interval, one.high) for one in candles} == {
        (venue, PRODUCT[venue], "1m", 3)
    }


def test_what_each_venue_is_asked() -> None:
    calls = {}
    for venue, history in CANDLE_HISTORIES.items():
        walk = CandleWalk(history, "1m", span(venue, NOON_S, NOON_S + 120))
        assert walk.call is not None
        calls[venue] = walk.call.request
    assert calls == {
        "coinbase_exchange": "/products/BTC-USD/candles?end=2026-03-10T12%3A01%3A59Z&granularity=60"
        "&start=2026-03-10T12%3A00%3A00Z",
        "coinbase_advanced": f"/market/products/BTC-USD/candles?end={NOON_S + 119}&granularity=ONE_MINUTE"
        f"&start={NOON_S}",
        "binance": f"/api/v3/klines?endTime={NOON_S + 119}999&interval=1m&limit=2&startTime={NOON_S}000&symbol=BTCUSDT",
        "cryptocompare": f"/v2/histominute?fsym=BTC&limit=1&toTs={NOON_S + 60}&tsym=USD",
    }


@pytest.mark.parametrize("venue", CANDLE_HISTORIES)
def test_a_walk_goes_on_from_its_cursor(venue: str) -> None:
    history, whole = CANDLE_HISTORIES[venue], span(venue, NOON_S, NOON_S + 5_000 * 60)
    killed = CandleWalk(history, "1m", whole)
    assert killed.call is not None
    first = asked(venue, killed.call.request, lambda _: True)
    killed.read(page(venue, first))
    resumed = CandleWalk(history, "1m", whole, killed.cursor)
    rest = [second for one in walked(resumed, venue) for second in one]
    assert sorted(first + rest) == list(range(NOON_S, NOON_S + 5_000 * 60, 60))
    assert resumed.done_part == 1.0


LIES: dict[str, tuple[Callable[[list[int]], list[int]], str]] = {
    "beyond": (lambda opens: [*opens, opens[-1] + 60], "were asked for"),
    "off the grid": (lambda opens: [opens[0] + 1, *opens[1:]], "not on the grid"),
    "twice": (lambda opens: [opens[0], *opens], "goes back"),
    "going back": (lambda opens: [opens[1], opens[0], *opens[2:]], "goes back"),
}


@pytest.mark.parametrize("venue", CANDLE_HISTORIES)
@pytest.mark.parametrize("lie", LIES)
def test_a_page_that_cannot_be_true_is_named_and_asked_for_again(venue: str, lie: str) -> None:
    walk = CandleWalk(CANDLE_HISTORIES[venue], "1m", span(venue, NOON_S, NOON_S + 600))
    spoil, said = LIES[lie]
    call = walk.call
    assert call is not None
    opens = asked(venue, call.request, lambda _: True)
    with pytest.raises(HistoryError, match=said):
        walk.read(page(venue, spoil(opens)))
    assert (walk.call, walk.cursor) == (call, None)
    walk.read(page(venue, opens))
    assert walk.call is None


@pytest.mark.parametrize("venue", CANDLE_HISTORIES)
@pytest.mark.parametrize("value", [b"", b"{", b"[[]]", b"[1]", b'[["x"]]', b'{"candles":[1]}', b'{"Response":"Error"}'])
def test_what_is_no_page_of_candles_is_named(venue: str, value: bytes) -> None:
    walk = CandleWalk(CANDLE_HISTORIES[venue], "1m", span(venue, NOON_S, NOON_S + 600))
    with pytest.raises(HistoryError):
        walk.read(value)
    assert walk.call is not None


def test_an_error_with_status_200_is_told_in_the_venues_words() -> None:
    walk = CandleWalk(CANDLE_HISTORIES["cryptocompare"], "1m", span("cryptocompare", NOON_S, NOON_S + 600))
    with pytest.raises(HistoryError, match="You are over your rate limit"):
        walk.read(b'{"Response":"Error","Message":"You are over your rate limit please upgrade","Data":{}}')


def test_an_interval_without_a_whole_candle_asks_for_nothing() -> None:
    for history in CANDLE_HISTORIES.values():
        walk = CandleWalk(history, "1m", span(history.venue, NOON_S + 1, NOON_S + 119))
        assert (walk.call, walk.estimate) == (None, 0)
