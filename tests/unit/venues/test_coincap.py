"""CoinCap pages: one row per asset, exact, all at the page's time, and no asset lost to a bad neighbour."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Ignored, Item, Parsed, RejectedItem, Unparseable
from marketflow.contracts.topics import PRICES
from marketflow.venues import coincap

HEADERS = {"venue": "coincap", "channel": "assets", "received_at": "1739399400000000", "http_status": "200"}
TIMESTAMP = 1739399343596

# the documentation's asset
BITCOIN = {
    "id": "bitcoin",
    "rank": 1,
    "symbol": "BTC",
    "name": "Bitcoin",
    "supply": "19788862.0000000000000000",
    "maxSupply": "21000000.0000000000000000",
    "marketCapUsd": "1904557171625.0952172577833640",
    "volumeUsd24Hr": "12724040223.1452060699561802",
    "priceUsd": "96243.8957644504882220",
    "changePercent24Hr": "0.9762522061124105",
    "vwap24Hr": "95583.4674577419449477",
}
ABSENT = object()


def body(*assets: object, **change: object) -> bytes:
    page = {"data": assets, "timestamp": TIMESTAMP, **change}
    return json.dumps({name: value for name, value in page.items() if value is not ABSENT}).encode()


def changed(change: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in {**BITCOIN, **change}.items() if value is not ABSENT}


def items(value: bytes, headers: dict[str, str] = HEADERS) -> tuple[Item, ...]:
    outcome = venues.parse(headers, value)
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


def only(change: dict[str, object]) -> AssetPrice:
    (item,) = items(body(changed(change)))
    assert isinstance(item, AssetPrice), item
    return item


def test_the_documentations_asset_is_read_to_the_last_digit() -> None:
    assert only({}) == AssetPrice(
        source="coincap",
        asset_id="bitcoin",
        vs_currency="usd",
        last_updated_us=1_739_399_343_596_000,
        symbol="BTC",
        name="Bitcoin",
        price=Decimal("96243.895764450488222"),
        market_cap=Decimal("1904557171625.095217257783364"),
        market_cap_rank=1,
        fully_diluted_valuation=None,
        volume_24h=Decimal("12724040223.1452060699561802"),
        high_24h=None,
        low_24h=None,
        change_24h_pct=Decimal("0.9762522061124105"),
        circulating_supply=Decimal(19788862),
        total_supply=None,
        max_supply=Decimal(21000000),
    )


def test_every_figure_of_a_page_equals_its_text_in_the_order_of_the_page() -> None:
    # 38 digits, zero, a fall, and a price that a double would not hold
    texts = (
        "0." + "0" * 17 + "1",
        "12345678901234567890.123456789012345678",
        "0.1000000000000000",
        "123456.7890123456789",
    )
    assets = [
        BITCOIN | {"id": f"asset-{place}", "priceUsd": text, "supply": text, "changePercent24Hr": f"-{text}"}
        for place, text in enumerate(texts)
    ]
    found = items(body(*assets))
    assert [item.asset_id for item in found if isinstance(item, AssetPrice)] == [asset["id"] for asset in assets]
    for item, text in zip(found, texts, strict=True):
        assert isinstance(item, AssetPrice)
        assert item.price == item.circulating_supply == Decimal(text)
        assert item.change_24h_pct == Decimal(f"-{text}")


@pytest.mark.parametrize(
    ("rank", "expected"),
    [(7, 7), ("7", 7), (0, 0), ("2147483647", 2**31 - 1), (None, None), (ABSENT, None)],
)
def test_a_rank_is_a_text_or_a_number(rank: object, expected: int | None) -> None:
    assert only({"rank": rank}).market_cap_rank == expected


def test_null_and_absent_figures_stay_null_and_unknown_fields_are_nobodys_business() -> None:
    names = ("maxSupply", "marketCapUsd", "volumeUsd24Hr", "changePercent24Hr", "supply", "vwap24Hr")
    more = {"explorer": None, "tokens": {"1": ["0x0"]}}
    for nothing in (None, ABSENT):
        item = only({**dict.fromkeys(names, nothing), **more})
        assert item.price == Decimal("96243.895764450488222")
        assert (item.max_supply, item.market_cap, item.volume_24h) == (None, None, None)
        assert (item.change_24h_pct, item.circulating_supply) == (None, None)
    assert only({"maxSupply": "0.0000000000000000"}).max_supply == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"priceUsd": None}, Reason.NULL_PRICE),
        ({"priceUsd": ABSENT}, Reason.NULL_PRICE),
        ({"priceUsd": ""}, Reason.MISSING_FIELD),
        ({"priceUsd": "0.0000000000000000"}, Reason.NOT_POSITIVE),
        ({"priceUsd": "-1"}, Reason.NOT_POSITIVE),
        ({"priceUsd": "a lot"}, Reason.WRONG_TYPE),
        ({"priceUsd": "NaN"}, Reason.WRONG_TYPE),
        ({"priceUsd": "1,000.00"}, Reason.WRONG_TYPE),
        ({"priceUsd": True}, Reason.WRONG_TYPE),
        ({"priceUsd": ["1"]}, Reason.WRONG_TYPE),
        ({"priceUsd": "0." + "0" * 18 + "1"}, Reason.OUT_OF_RANGE),  # 19 fraction digits
        ({"priceUsd": "1" + "0" * 20}, Reason.OUT_OF_RANGE),  # 21 integer digits
        ({"id": ABSENT}, Reason.MISSING_FIELD),
        ({"id": ""}, Reason.MISSING_FIELD),
        ({"id": 1}, Reason.WRONG_TYPE),
        ({"id": "a\x00b"}, Reason.WRONG_TYPE),
        ({"symbol": None}, Reason.MISSING_FIELD),
        ({"symbol": 7}, Reason.WRONG_TYPE),
        ({"name": None}, Reason.MISSING_FIELD),
        ({"rank": "1.5"}, Reason.OUT_OF_RANGE),
        ({"rank": -1}, Reason.OUT_OF_RANGE),
        ({"rank": 2**31}, Reason.OUT_OF_RANGE),
        ({"rank": "first"}, Reason.WRONG_TYPE),
        ({"marketCapUsd": "-1"}, Reason.OUT_OF_RANGE),
        ({"marketCapUsd": "1e21"}, Reason.OUT_OF_RANGE),
        ({"volumeUsd24Hr": {}}, Reason.WRONG_TYPE),
        ({"supply": "-0.0000000000000001"}, Reason.OUT_OF_RANGE),
        ({"changePercent24Hr": "much"}, Reason.WRONG_TYPE),
    ],
)
def test_one_bad_asset_is_refused_by_name_and_its_neighbours_stay(change: dict[str, object], reason: Reason) -> None:
    before, bad, after = items(body(BITCOIN | {"id": "a"}, changed(change), BITCOIN | {"id": "z"}))
    assert isinstance(bad, RejectedItem)
    assert bad.reason is reason
    assert next(iter(change)) in bad.detail
    assert isinstance(before, AssetPrice)
    assert isinstance(after, AssetPrice)
    assert (before.asset_id, after.asset_id) == ("a", "z")


def test_elements_that_are_no_assets_are_named_each() -> None:
    found = items(body(7, None, "x", [], {}, BITCOIN))
    assert [item.reason for item in found if isinstance(item, RejectedItem)] == [
        *[Reason.UNEXPECTED_SHAPE] * 4,
        Reason.MISSING_FIELD,
    ]
    assert isinstance(found[5], AssetPrice)


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        (1_739_399_460_000, 1_739_399_460_000_000),  # a minute after receipt
        (1_739_399_343_596_789, 1_739_399_343_596_789),  # microseconds are told by their size
        (1_230_768_000_000, 1_230_768_000_000_000),  # the first moment of 2009
    ],
)
def test_the_edge_of_a_pages_time_is_accepted_exactly(timestamp: int, expected: int) -> None:
    (item,) = items(body(BITCOIN, timestamp=timestamp))
    assert isinstance(item, AssetPrice)
    assert item.last_updated_us == expected


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        (ABSENT, Reason.MISSING_FIELD),
        (None, Reason.MISSING_FIELD),
        ("1739399343596", Reason.BAD_TIME),
        (1739399343596.5, Reason.BAD_TIME),
        (-1, Reason.BAD_TIME),
        (0, Reason.TIME_BEFORE_2009),
        (1_739_399_343, Reason.TIME_BEFORE_2009),  # seconds are not what the venue promises
        (1_230_767_999_999, Reason.TIME_BEFORE_2009),
        (1_739_399_460_001, Reason.TIME_IN_FUTURE),
    ],
)
def test_a_page_without_a_usable_time_gives_no_prices(timestamp: object, reason: Reason) -> None:
    outcome = venues.parse(HEADERS, body(BITCOIN, timestamp=timestamp))
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"<html>", Reason.MALFORMED),
        (b"null", Reason.UNEXPECTED_SHAPE),
        (b"[]", Reason.UNEXPECTED_SHAPE),  # the assets themselves, which the venue never sends
        (b"{}", Reason.UNEXPECTED_SHAPE),
        (b'{"message":"limit exceeds 2000"}', Reason.UNEXPECTED_SHAPE),
        (b'{"data":null,"timestamp":1739399343596}', Reason.UNEXPECTED_SHAPE),
        (b'{"data":{},"timestamp":1739399343596}', Reason.UNEXPECTED_SHAPE),  # one asset, of another call
        (b'{"data":[],"timestamp":', Reason.MALFORMED),
        (b'{"data":[]}{}', Reason.MALFORMED),
        (b'{"data":[],"x":"\xff"}', Reason.MALFORMED),  # not UTF-8 where nobody looks
        pytest.param(b'{"data":' + b"[" * 100_000, Reason.MALFORMED, id="deep"),
    ],
)
def test_an_answer_that_is_no_page_is_one_named_reject(value: bytes, reason: Reason) -> None:
    outcome = venues.parse(HEADERS, value)
    assert isinstance(outcome, Unparseable)
    assert outcome.reason is reason


def test_an_answer_without_prices_is_ignored_by_name() -> None:
    assert venues.parse(HEADERS, b'{"error":"limit exceeds 2000","timestamp":1739399343596}') == Ignored("venue_error")
    assert venues.parse(HEADERS, b'{"data":[],"timestamp":1739399343596}') == Ignored("empty_page")
    assert venues.parse(HEADERS | {"http_status": "429"}, b'{"error":"no credits"}') == Ignored("http_429")


def test_a_request_is_canonical_and_holds_no_key() -> None:
    assert coincap.page_request(1, 2000) == "/assets?limit=2000&offset=0"
    assert coincap.page_request(3, 250) == "/assets?limit=250&offset=500"


def test_every_page_goes_to_the_prices_topic() -> None:
    for value in (body(BITCOIN), b'{"error":"no"}', b"\xff", b"", b"[" * 9999):
        assert coincap.topic_of(value) is PRICES
