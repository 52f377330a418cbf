"""CryptoCompare's pricemultifull: one row per coin and currency, exact, and errors that come with status 200."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Ignored, Item, Parsed, RejectedItem, Unparseable
from marketflow.contracts.topics import CANDLES, PRICES
from marketflow.venues import cryptocompare

HEADERS = {
    "venue": "cryptocompare",
    "channel": "pricemultifull",
    "received_at": "1783465200000000",  # 2026-07-07T23:00:00Z
    "http_status": "200",
}
# own figures in the shape that the documentation gives
FIGURES = {
    "TYPE": "5",
    "MARKET": "CCCAGG",
    "FROMSYMBOL": "BTC",
    "TOSYMBOL": "USD",
    "FLAGS": "2052",
    "PRICE": 63551.02,
    "LASTUPDATE": 1783465157,
    "LASTVOLUME": 0.00317,
    "LASTTRADEID": "103421124",
    "VOLUME24HOUR": 23598.259727936293,
    "VOLUME24HOURTO": 209873778.1531385,
    "OPEN24HOUR": 64000.5,
    "HIGH24HOUR": 64100.25,
    "LOW24HOUR": 63000,
    "CHANGE24HOUR": -449.48000000000320,
    "CHANGEPCT24HOUR": -0.7023070132264649,
    "SUPPLY": 20030493,
    "CIRCULATINGSUPPLY": 20030400.5,
    "MKTCAP": 1272958261746.86,
    "TOTALVOLUME24H": 265462.6467836028,
    "TOTALVOLUME24HTO": 2359078302.8859205,
    "IMAGEURL": "/media/btc.png",
}
OVER_THE_LIMIT = {
    "Response": "Error",
    "Message": "You are over your rate limit please upgrade your account!",
    "HasWarning": False,
    "Type": 99,
    "RateLimit": {"max_calls": {"second": 20}},
    "Data": {},
}
CANDLE_PAGE = {
    "Response": "Success",
    "Type": 100,
    "Data": {"TimeFrom": 1783465140, "TimeTo": 1783465140, "Data": [{"time": 1783465140, "open": 1, "close": 2}]},
}
ABSENT = object()


def changed(change: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**FIGURES, **change}.items() if value is not ABSENT}


def body(*figures: object) -> bytes:
    """A page of coins in one currency, whose keys say nothing that the figures do not."""
    raw = {f"COIN{place}": {"USD": one} for place, one in enumerate(figures)}
    return json.dumps({"RAW": raw, "DISPLAY": {"COIN0": {"USD": {"PRICE": "$ 63,551.0"}}}}).encode()


def items(value: bytes, headers: dict[str, str] = HEADERS) -> tuple[Item, ...]:
    outcome = venues.parse(headers, value)
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


def only(value: bytes) -> AssetPrice:
    (item,) = items(value)
    assert isinstance(item, AssetPrice), item
    return item


def test_every_figure_of_a_coin_equals_its_text() -> None:
    value = body(FIGURES)
    text = json.loads(value, parse_float=Decimal, parse_int=Decimal)["RAW"]["COIN0"]["USD"]
    assert only(value) == AssetPrice(
        source="cryptocompare",
        asset_id="BTC",
        vs_currency="usd",
        last_updated_us=1_783_465_157_000_000,
        symbol="BTC",
        name="BTC",
        price=text["PRICE"],
        market_cap=text["MKTCAP"],
        market_cap_rank=None,
        fully_diluted_valuation=None,
        volume_24h=text["TOTALVOLUME24HTO"],
        high_24h=text["HIGH24HOUR"],
        low_24h=text["LOW24HOUR"],
        change_24h_pct=text["CHANGEPCT24HOUR"],
        circulating_supply=text["CIRCULATINGSUPPLY"],
        total_supply=text["SUPPLY"],
        max_supply=None,
    )


def test_a_page_gives_every_coin_in_every_currency_in_its_order() -> None:
    raw = {
        base: {quote: FIGURES | {"FROMSYMBOL": base, "TOSYMBOL": quote} for quote in quotes}
        for base, quotes in {"ETH": ("USD", "EUR"), "BTC": ("JPY",), "XRP": (), "ADA": ("BTC", "USD")}.items()
    }
    found = items(json.dumps({"RAW": raw}).encode())
    assert [(item.asset_id, item.vs_currency) for item in found if isinstance(item, AssetPrice)] == [
        ("ETH", "usd"),
        ("ETH", "eur"),
        ("BTC", "jpy"),
        ("ADA", "btc"),
        ("ADA", "usd"),
    ]
    assert len(found) == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-8", "0.00000001"),
        ("8.12345678901e-6", "0.00000812345678901"),
        ("0.1", "0.1"),
        ("123456789012345.678901", "123456789012345.678901"),
        ("1E+5", "100000"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
    ],
)
def test_a_price_is_exact_whatever_its_notation(text: str, expected: str) -> None:
    assert only(body(FIGURES).replace(b'"PRICE": 63551.02', f'"PRICE": {text}'.encode())).price == Decimal(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-5.5", "-5.5"),
        ("0", "0"),
        ("-0.0", "0"),
        ("0.0000000000000000005", "0"),  # a tie, to the even 0
        ("0.0000000000000000015", "0.000000000000000002"),  # a tie, to the even 2
        ("-0.01234567890123456789", "-0.012345678901234568"),
        ("1.2345678901234567e-30", "0"),
    ],
)
def test_a_change_is_a_doubles_ratio_and_rounded_half_even_to_18_places(text: str, expected: str) -> None:
    value = body(FIGURES).replace(b'"CHANGEPCT24HOUR": -0.7023070132264649', f'"CHANGEPCT24HOUR": {text}'.encode())
    assert only(value).change_24h_pct == Decimal(expected)


def test_null_and_absent_figures_stay_null() -> None:
    names = ("MKTCAP", "TOTALVOLUME24HTO", "HIGH24HOUR", "LOW24HOUR", "CHANGEPCT24HOUR", "CIRCULATINGSUPPLY", "SUPPLY")
    for nothing in (None, ABSENT):
        item = only(body(changed(dict.fromkeys(names, nothing))))
        assert item.price == Decimal("63551.02")
        assert {item.market_cap, item.volume_24h, item.high_24h, item.low_24h} == {None}
        assert {item.change_24h_pct, item.circulating_supply, item.total_supply} == {None}
    assert only(body(changed({"MKTCAP": 0}))).market_cap == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PRICE": None}, Reason.NULL_PRICE),
        ({"PRICE": ABSENT}, Reason.NULL_PRICE),
        ({"PRICE": 0}, Reason.NOT_POSITIVE),
        ({"PRICE": -1.5}, Reason.NOT_POSITIVE),
        ({"PRICE": "$ 63,551.0"}, Reason.WRONG_TYPE),  # what DISPLAY holds
        ({"PRICE": True}, Reason.WRONG_TYPE),
        ({"PRICE": [1]}, Reason.WRONG_TYPE),
        ({"PRICE": 1e-19}, Reason.OUT_OF_RANGE),
        ({"PRICE": 10**20}, Reason.OUT_OF_RANGE),
        ({"FROMSYMBOL": None}, Reason.MISSING_FIELD),
        ({"FROMSYMBOL": 7}, Reason.WRONG_TYPE),
        ({"FROMSYMBOL": "a\x00b"}, Reason.WRONG_TYPE),
        ({"TOSYMBOL": ABSENT}, Reason.MISSING_FIELD),
        ({"TOSYMBOL": "U S D"}, Reason.WRONG_TYPE),
        ({"TOSYMBOL": "x" * 17}, Reason.WRONG_TYPE),
        ({"LASTUPDATE": None}, Reason.MISSING_FIELD),
        ({"LASTUPDATE": "1783465157"}, Reason.BAD_TIME),
        ({"LASTUPDATE": 1783465157.5}, Reason.BAD_TIME),
        ({"LASTUPDATE": -1}, Reason.BAD_TIME),
        ({"LASTUPDATE": 1783465157000}, Reason.BAD_TIME),  # milliseconds are not what the venue promises
        ({"LASTUPDATE": 0}, Reason.TIME_BEFORE_2009),
        ({"LASTUPDATE": 1_230_767_999}, Reason.TIME_BEFORE_2009),  # the last second of 2008
        ({"LASTUPDATE": 1_783_465_261}, Reason.TIME_IN_FUTURE),  # one second beyond a minute
        ({"LASTUPDATE": 99_999_999_999}, Reason.TIME_IN_FUTURE),  # the year 5138
        ({"LASTUPDATE": 100_000_000_000}, Reason.TIME_IN_FUTURE),  # one second later
        ({"MKTCAP": -1}, Reason.OUT_OF_RANGE),
        ({"MKTCAP": 1e21}, Reason.OUT_OF_RANGE),
        ({"SUPPLY": {}}, Reason.WRONG_TYPE),
        ({"CHANGEPCT24HOUR": "up"}, Reason.WRONG_TYPE),
        ({"CHANGEPCT24HOUR": 1e20}, Reason.OUT_OF_RANGE),
    ],
)
def test_one_bad_coin_is_refused_by_name_and_its_neighbours_stay(change: dict[str, object], reason: Reason) -> None:
    neighbours = (changed({"FROMSYMBOL": "A"}), changed({"FROMSYMBOL": "Z"}))
    before, bad, after = items(body(neighbours[0], changed(change), neighbours[1]))
    assert isinstance(bad, RejectedItem)
    assert bad.reason is reason
    assert next(iter(change)) in bad.detail
    assert isinstance(before, AssetPrice)
    assert isinstance(after, AssetPrice)
    assert (before.asset_id, after.asset_id) == ("A", "Z")


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"LASTUPDATE": 1_783_465_260}, "last_updated_us", 1_783_465_260_000_000),  # a minute after receipt
        ({"LASTUPDATE": 1_230_768_000}, "last_updated_us", 1_230_768_000_000_000),  # the first second of 2009
        ({"TOSYMBOL": "x" * 16}, "vs_currency", "x" * 16),
        ({"PRICE": 1e-18}, "price", Decimal("0.000000000000000001")),
    ],
)
def test_the_edge_of_every_limit_is_accepted_exactly(change: dict[str, object], field: str, expected: object) -> None:
    assert getattr(only(body(changed(change))), field) == expected


def test_a_coin_without_its_currencies_is_refused_where_it_stands() -> None:
    raw = {"A": {"USD": FIGURES}, "B": 7, "C": None, "D": {"USD": "x"}, "E": {"USD": {}}, "F": {"USD": FIGURES}}
    first, *bad, last = items(json.dumps({"RAW": raw}).encode())
    assert [item.reason for item in bad if isinstance(item, RejectedItem)] == [
        *[Reason.UNEXPECTED_SHAPE] * 3,
        Reason.MISSING_FIELD,
    ]
    assert isinstance(first, AssetPrice)
    assert isinstance(last, AssetPrice)


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (OVER_THE_LIMIT, "venue_error"),
        ({"Response": "Error", "Message": "fsyms param is empty", "Type": 2}, "venue_error"),
        ({"Response": "Success", "Type": 100, "Data": {}}, "no_prices"),
        ({"Response": "Success", "Type": 100, "Data": [1]}, "no_prices"),
        ({"RAW": {}, "DISPLAY": {}}, "empty_page"),
        ({"RAW": {"BTC": {}}}, "empty_page"),
    ],
)
def test_an_answer_without_prices_is_ignored_by_name(answer: dict[str, object], name: str) -> None:
    assert venues.parse(HEADERS, json.dumps(answer).encode()) == Ignored(name)
    assert venues.parse(HEADERS | {"http_status": "401"}, json.dumps(answer).encode()) == Ignored("http_401")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"<html>", Reason.MALFORMED),
        (b"null", Reason.UNEXPECTED_SHAPE),
        (b"[]", Reason.UNEXPECTED_SHAPE),
        (b"{}", Reason.UNEXPECTED_SHAPE),
        (b'{"RAW":null}', Reason.UNEXPECTED_SHAPE),
        (b'{"RAW":[]}', Reason.UNEXPECTED_SHAPE),
        (b'{"Data":{},"Err":{"type":1}}', Reason.UNEXPECTED_SHAPE),  # the new API's error
        (b'{"Response":7}', Reason.WRONG_TYPE),
        (b'{"RAW":{"BTC":{"USD":{}', Reason.MALFORMED),
        (b'{"RAW":{}}{}', Reason.MALFORMED),
        (b'{"RAW":{},"x":"\xff"}', Reason.MALFORMED),  # not UTF-8 where nobody looks
    ],
)
def test_an_answer_that_is_no_page_is_one_named_reject(value: bytes, reason: Reason) -> None:
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason


def test_a_request_is_canonical_and_holds_no_key() -> None:
    assert cryptocompare.page_request(("BTC", "ETH"), ("usd", "EUR")) == (
        "/pricemultifull?fsyms=BTC%2CETH&tsyms=USD%2CEUR"
    )


def test_only_candles_leave_the_prices_topic() -> None:
    assert cryptocompare.topic_of(json.dumps(CANDLE_PAGE).encode()) is CANDLES
    for value in (body(FIGURES), b'{"Response":"Error","Type":2}', b"\xff", b"", b"[" * 9999):
        assert cryptocompare.topic_of(value) is PRICES


@pytest.mark.parametrize("answer", [OVER_THE_LIMIT, {"Data": {}, "Err": {"type": 1}}])
def test_an_error_is_no_page_of_candles(answer: dict[str, object]) -> None:
    assert cryptocompare.topic_of(json.dumps(answer).encode()) is PRICES
