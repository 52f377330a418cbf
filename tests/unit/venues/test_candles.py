"""Candles of every venue: exact, over when they arrived, and each bad one refused where it stands."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Candle, Ignored, Item, Parsed, RejectedItem, Unparseable
from marketflow.contracts.silver import CANDLE_INTERVALS_S
from tests.candle_pages import (
    ADVANCED_HEADERS,
    EXCHANGE,
    EXCHANGE_HEADERS,
    HISTORY,
    HISTORY_HEADERS,
    KLINES,
    KLINES_HEADERS,
    NOON_S,
    PAGES,
    RECEIVED_US,
)

NOON_US = NOON_S * 1_000_000
FIRST = {"open": "63551.01", "high": "63551.02", "low": "63551.01", "close": "63551.02"}
SECOND = {"open": "63551.02", "high": "63560.55", "low": "63500", "close": "63553.10"}
# volume, notional and trades of the first and the second candle
TOTALS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "coinbase_exchange": (("0.00000025", None, None), ("1.234567890123456789", None, None)),
    "coinbase_advanced": (("0.5", None, None), ("1.25", None, None)),
    "binance": (("0.5", "31775.51", 7), ("1.25", "79440", 0)),
    "cryptocompare": (("0.5", "31775.51", None), ("1.591", "101110.62345678901234567", None)),
}
OLDEST_FIRST = ("binance", "cryptocompare")


def items(headers: dict[str, str], value: bytes) -> tuple[Item, ...]:
    outcome = venues.parse(headers, value)
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


def candle(venue: str, number: int) -> Candle:
    volume, notional, trade_count = TOTALS[venue][number]
    return Candle(
        venue=venue,
        product_id=PAGES[venue][0]["product_id"],
        interval="1m",
        open_us=NOON_US + number * 60_000_000,
        **{name: Decimal(price) for name, price in (FIRST, SECOND)[number].items()},
        volume=Decimal(volume),
        notional=None if notional is None else Decimal(notional),
        trade_count=trade_count,
    )


@pytest.mark.parametrize("venue", sorted(PAGES))
def test_a_page_gives_its_candles_exactly_and_refuses_the_one_that_is_not_over(venue: str) -> None:
    found = items(*PAGES[venue])
    first, second, last = found if venue in OLDEST_FIRST else reversed(found)
    assert (first, second) == (candle(venue, 0), candle(venue, 1))
    assert isinstance(last, RejectedItem)
    assert (last.reason, "ended 30.000000 s later" in last.detail) == (Reason.INCOMPLETE_CANDLE, True)


@pytest.mark.parametrize(("received_us", "is_over"), [(NOON_US + 60_000_000, True), (NOON_US + 59_999_999, False)])
def test_a_candle_is_over_at_its_very_end(received_us: int, is_over: bool) -> None:
    value = json.dumps([[NOON_S, 1, 2, 1, 2, 3]]).encode()
    (item,) = items(EXCHANGE_HEADERS | {"received_at": str(received_us)}, value)
    assert isinstance(item, Candle) is is_over


@pytest.mark.parametrize("interval", CANDLE_INTERVALS_S)
def test_every_interval_has_its_grid(interval: str) -> None:
    length = CANDLE_INTERVALS_S[interval]
    start = NOON_S // 86_400 * 86_400 - 86_400
    value = json.dumps([[start, 1, 2, 1, 2, 3], [start + length // 2, 1, 2, 1, 2, 3]]).encode()
    on_the_grid, off_it = items(EXCHANGE_HEADERS | {"interval": interval}, value)
    assert isinstance(on_the_grid, Candle)
    assert (on_the_grid.interval, on_the_grid.open_us) == (interval, start * 1_000_000)
    assert isinstance(off_it, RejectedItem)
    assert (off_it.reason, off_it.detail.endswith(f"is not on the grid of {interval}")) == (Reason.BAD_TIME, True)


# time, low, high, open, close, volume
GOOD: list[Any] = [NOON_S, 10, 20, 12, 18, 5]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({1: 21}, Reason.INCONSISTENT_CANDLE),  # low above high
        ({3: 9}, Reason.INCONSISTENT_CANDLE),  # open below low
        ({3: 21}, Reason.INCONSISTENT_CANDLE),
        ({4: 9.5}, Reason.INCONSISTENT_CANDLE),
        ({4: 20.000001}, Reason.INCONSISTENT_CANDLE),  # close above high
        ({1: 0}, Reason.NOT_POSITIVE),
        ({2: None}, Reason.MISSING_FIELD),
        ({2: "much"}, Reason.WRONG_TYPE),
        ({2: True}, Reason.WRONG_TYPE),
        ({2: 1e20}, Reason.OUT_OF_RANGE),
        ({3: 1e-19}, Reason.OUT_OF_RANGE),
        ({5: None}, Reason.MISSING_FIELD),
        ({5: -1}, Reason.OUT_OF_RANGE),
        ({5: "5"}, Reason.WRONG_TYPE),  # volumes are numbers here
        ({0: 0}, Reason.TIME_BEFORE_2009),
        ({0: RECEIVED_US // 1_000_000 + 90}, Reason.TIME_IN_FUTURE),
        ({0: str(NOON_S)}, Reason.BAD_TIME),
        ({0: NOON_S + 0.5}, Reason.BAD_TIME),
        ({0: None}, Reason.MISSING_FIELD),
    ],
)
def test_a_bad_candle_is_refused_by_name_and_its_neighbours_stay(change: dict[int, Any], reason: Reason) -> None:
    bad = [change.get(place, value) for place, value in enumerate(GOOD)]
    before, refused, after = items(EXCHANGE_HEADERS, json.dumps([GOOD, bad, GOOD]).encode())
    assert isinstance(before, Candle)
    assert before == after
    assert isinstance(refused, RejectedItem)
    assert refused.reason is reason


@pytest.mark.parametrize("element", ["7", "{}", "null", "[]", f"[{NOON_S},1,2,1,2]"])
def test_what_is_no_row_is_refused_where_it_stands(element: str) -> None:
    first, bad, last = items(EXCHANGE_HEADERS, f"[{json.dumps(GOOD)},{element},{json.dumps(GOOD)}]".encode())
    assert isinstance(bad, RejectedItem)
    assert bad.reason is Reason.UNEXPECTED_SHAPE
    assert first == last


def test_a_candle_without_trades_may_have_no_volume() -> None:
    (item,) = items(EXCHANGE_HEADERS, json.dumps([[NOON_S, 10, 10, 10, 10, 0]]).encode())
    assert isinstance(item, Candle)
    assert item.volume == 0


def test_a_kline_of_another_length_than_the_header_says_is_refused() -> None:
    day = json.dumps([[NOON_S * 1000 - 43_200_000, *["1"] * 5, NOON_S * 1000 + 43_199_999, "1", 1, "1", "1", "0"]])
    headers = KLINES_HEADERS | {"received_at": str(NOON_US + 86_400_000_000)}
    for interval, reason in (("1m", Reason.INCONSISTENT_CANDLE), ("1d", None)):
        (item,) = items(headers | {"interval": interval}, day.encode())
        assert (item.reason if isinstance(item, RejectedItem) else None) is reason


def test_klines_in_microseconds_are_the_same_candles() -> None:
    value = KLINES.replace(b"999,", b"999999,").replace(b"000,", b"000000,")
    assert value != KLINES
    assert items(KLINES_HEADERS, value)[:2] == items(KLINES_HEADERS, KLINES)[:2]


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (EXCHANGE_HEADERS, b"[]"),
        (ADVANCED_HEADERS, b'{"candles":[]}'),
        (KLINES_HEADERS, b"[]"),
        (HISTORY_HEADERS, b'{"Response":"Success","Data":{"Data":[]}}'),
    ],
    ids=lambda one: one.get("venue") if isinstance(one, dict) else "",
)
def test_a_page_without_candles_is_ignored_by_name(headers: dict[str, str], value: bytes) -> None:
    assert venues.parse(headers, value) == Ignored("empty_page")
    assert venues.parse(headers | {"http_status": "429"}, value) == Ignored("http_429")


@pytest.mark.parametrize("venue", sorted(PAGES))
@pytest.mark.parametrize(
    "change",
    [{"product_id": ""}, {"product_id": "NO-PRODUCT"}, {"interval": "2m"}, {"interval": ""}, {"received_at": "now"}],
    ids=str,
)
def test_a_page_whose_headers_do_not_name_it_is_one_named_reject(venue: str, change: dict[str, str]) -> None:
    headers, value = PAGES[venue]
    outcome = venues.parse(headers | change, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is Reason.BAD_HEADERS


@pytest.mark.parametrize(
    ("venue", "other"),
    [("coinbase_exchange", "BTC-USDT"), ("binance", "BTC-USD"), ("cryptocompare", "SKL-BTC")],
)
def test_a_product_of_another_venue_is_refused(venue: str, other: str) -> None:
    headers, value = PAGES[venue]
    outcome = venues.parse(headers | {"product_id": other}, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.detail == f"header product_id is '{other}', not a product of {venue}"


@pytest.mark.parametrize("venue", ["binance", "coinbase_advanced", "coinbase_exchange"])
def test_the_interval_has_to_be_said_where_a_venue_has_several(venue: str) -> None:
    headers, value = PAGES[venue]
    outcome = venues.parse({name: text for name, text in headers.items() if name != "interval"}, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is Reason.BAD_HEADERS


def test_histominute_is_of_minutes_unless_a_header_says_otherwise() -> None:
    assert {item.interval for item in items(HISTORY_HEADERS, HISTORY) if isinstance(item, Candle)} == {"1m"}
    first, second, _ = items(HISTORY_HEADERS | {"interval": "15m", "received_at": str(NOON_US + 10**10)}, HISTORY)
    assert isinstance(first, Candle)
    assert first.interval == "15m"
    assert isinstance(second, RejectedItem)  # 12:01 begins no quarter of an hour


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (EXCHANGE_HEADERS, b'{"message":"NotFound"}'),
        (KLINES_HEADERS, b'{"code":-1121,"msg":"Invalid symbol."}'),
        (ADVANCED_HEADERS, b'{"candles":{}}'),
        (HISTORY_HEADERS, b'{"Response":"Success","Data":{"Data":{}}}'),
    ],
    ids=lambda one: one.get("venue") if isinstance(one, dict) else "",
)
def test_an_answer_of_another_shape_is_one_named_reject(headers: dict[str, str], value: bytes) -> None:
    outcome = venues.parse(headers, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is Reason.UNEXPECTED_SHAPE


def test_digits_are_those_of_the_text_and_no_doubles() -> None:
    price = "63551.012345678901234567"
    value = EXCHANGE.replace(b"63551.01", price.encode())
    *_, first = items(EXCHANGE_HEADERS, value)
    assert isinstance(first, Candle)
    assert (first.open, first.low) == (Decimal(price), Decimal(price))
