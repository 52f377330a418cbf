"""CoinGecko pages: one row per coin, exact, and no coin lost to a bad neighbour."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Ignored, Parsed, RejectedItem, Unparseable
from marketflow.venues import coingecko

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures" / "coingecko"
HEADERS = {"venue": "coingecko", "channel": "markets", "received_at": "1783465200000000", "vs_currency": "usd"}
COIN = {
    "id": "pepe",
    "symbol": "pepe",
    "name": "Pepe",
    "current_price": 1.5,
    "last_updated": "2026-07-07T22:58:16.156Z",
}


def page(*coins: object, **headers: str) -> tuple[object, ...]:
    outcome = venues.parse(HEADERS | headers, json.dumps(coins).encode())
    assert isinstance(outcome, Parsed)
    return outcome.items


def test_the_documentations_example_is_read_to_the_last_digit() -> None:
    outcome = venues.parse(HEADERS, (CAPTURES / "markets-docs-example-2024-04.json").read_bytes())
    assert outcome == Parsed(
        (
            AssetPrice(
                source="coingecko",
                asset_id="bitcoin",
                vs_currency="usd",
                last_updated_us=1_712_508_571_736_000,
                symbol="btc",
                name="Bitcoin",
                price=Decimal(70187),
                market_cap=Decimal(1381651251183),
                market_cap_rank=1,
                fully_diluted_valuation=Decimal(1474623675796),
                volume_24h=Decimal(20154184933),
                high_24h=Decimal(70215),
                low_24h=Decimal(68060),
                change_24h_pct=Decimal("3.12502"),
                circulating_supply=Decimal(19675987),
                total_supply=Decimal(21000000),
                max_supply=Decimal(21000000),
            ),
        )
    )


def test_every_figure_of_the_captured_page_equals_its_text() -> None:
    value = (CAPTURES / "markets-2022-01-rank6-20.json").read_bytes()
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Parsed)
    coins = json.loads(value, parse_float=Decimal, parse_int=Decimal)
    assert len(coins) == 15
    names = {"price": "current_price", "volume_24h": "total_volume", "change_24h_pct": "price_change_percentage_24h"}
    same = ("market_cap", "market_cap_rank", "fully_diluted_valuation", "high_24h", "low_24h", "circulating_supply")
    for item, coin in zip(outcome.items, coins, strict=True):
        assert isinstance(item, AssetPrice)
        for ours, theirs in {**names, **{name: name for name in (*same, "total_supply", "max_supply")}}.items():
            assert getattr(item, ours) == coin[theirs], (coin["id"], theirs)
    assert sum(item.fully_diluted_valuation is None for item in outcome.items) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-8", "0.00000001"),
        ("8.12345678901e-6", "0.00000812345678901"),
        ("0.1", "0.1"),
        ("123456789012345.678901", "123456789012345.678901"),
        ("1E+5", "100000"),
        ('"0.25"', "0.25"),
    ],
)
def test_a_json_number_is_exact_whatever_its_notation(text: str, expected: str) -> None:
    value = json.dumps([COIN]).replace("1.5", text).encode()
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Parsed)
    assert isinstance(outcome.items[0], AssetPrice)
    assert outcome.items[0].price == Decimal(expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"current_price": None}, Reason.NULL_PRICE),
        ({"current_price": 0}, Reason.NOT_POSITIVE),
        ({"current_price": 1e-19}, Reason.OUT_OF_RANGE),
        ({"current_price": "a lot"}, Reason.WRONG_TYPE),
        ({"last_updated": None}, Reason.MISSING_FIELD),
        ({"last_updated": "0001-01-01T00:00:00Z"}, Reason.TIME_BEFORE_2009),
        ({"last_updated": "2126-01-01T00:00:00Z"}, Reason.TIME_IN_FUTURE),
        ({"id": ""}, Reason.MISSING_FIELD),
        ({"id": "a\x00b"}, Reason.WRONG_TYPE),
        ({"symbol": 7}, Reason.WRONG_TYPE),
        ({"market_cap": -1}, Reason.OUT_OF_RANGE),
        ({"market_cap": 1e21}, Reason.OUT_OF_RANGE),
        ({"market_cap_rank": 2**31}, Reason.OUT_OF_RANGE),
        ({"market_cap_rank": 1.5}, Reason.WRONG_TYPE),
        ({"total_supply": []}, Reason.WRONG_TYPE),
    ],
)
def test_one_bad_coin_is_refused_by_name_and_its_neighbours_stay(change: dict[str, object], reason: Reason) -> None:
    before, bad, after = page(COIN | {"id": "a"}, COIN | change, COIN | {"id": "z"})
    assert isinstance(bad, RejectedItem)
    assert bad.reason is reason
    assert isinstance(before, AssetPrice)
    assert isinstance(after, AssetPrice)
    assert (before.asset_id, after.asset_id) == ("a", "z")


def test_null_and_absent_figures_stay_null_and_a_fall_stays_negative() -> None:
    (item,) = page(COIN | {"market_cap": None, "max_supply": 0, "price_change_percentage_24h": -5.5})
    assert isinstance(item, AssetPrice)
    assert (item.market_cap, item.volume_24h, item.max_supply, item.change_24h_pct) == (
        None,
        None,
        Decimal(0),
        Decimal("-5.5"),
    )


def test_the_quote_currency_comes_from_the_header_or_the_request() -> None:
    (item,) = page(COIN, vs_currency="EUR")
    assert isinstance(item, AssetPrice)
    assert item.vs_currency == "eur"
    (item,) = page(COIN, vs_currency="", request="/coins/markets?page=1&vs_currency=gbp")
    assert isinstance(item, AssetPrice)
    assert item.vs_currency == "gbp"
    nowhere = {name: text for name, text in HEADERS.items() if name != "vs_currency"}
    for request in ({}, {"request": "/coins/markets?page=1"}, {"request": "//[bad"}, {"request": "?vs_currency=a%00"}):
        outcome = venues.parse(nowhere | request, json.dumps([COIN]).encode())
        assert isinstance(outcome, Unparseable)
        assert outcome.reason is Reason.BAD_HEADERS


@pytest.mark.parametrize("name", ["error-422-missing-vs_currency.json", "error-500.json"])
def test_an_error_object_with_status_200_is_an_unexpected_shape(name: str) -> None:
    value = (CAPTURES / name).read_bytes()
    outcome = venues.parse(HEADERS | {"http_status": "200"}, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is Reason.UNEXPECTED_SHAPE
    assert venues.parse(HEADERS | {"http_status": "500"}, value) == Ignored("http_500")


def test_an_empty_page_is_ignored_and_a_cut_one_is_malformed() -> None:
    assert venues.parse(HEADERS, b"[]") == Ignored("empty_page")
    cut = venues.parse(HEADERS, json.dumps([COIN]).encode()[:-5])
    assert isinstance(cut, Unparseable)
    assert cut.reason is Reason.MALFORMED


def test_a_page_that_holds_other_things_names_each() -> None:
    items = page(7, None, "x", [], {})
    assert [item.reason for item in items if isinstance(item, RejectedItem)] == [
        *[Reason.UNEXPECTED_SHAPE] * 4,
        Reason.MISSING_FIELD,
    ]


def test_a_request_is_canonical_and_holds_no_key() -> None:
    assert coingecko.page_request("usd", 2, 100) == (
        "/coins/markets?order=market_cap_desc&page=2&per_page=100&precision=18&vs_currency=usd"
    )
