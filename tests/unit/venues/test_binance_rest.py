"""Binance's REST answers: pages of old trades and 24 hour prices, each element judged by itself."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from marketflow import venues
from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Ignored, Item, Parsed, RejectedItem, Trade, Unparseable
from marketflow.venues import binance

CAPTURES = Path(__file__).parents[2] / "fixtures" / "captures" / "binance"
STREAM = (CAPTURES / "ws-trade-depth-btcusdt-ethusdt-2026-07-07.ndjson").read_bytes().splitlines()
DAY = (CAPTURES / "rest-ticker-24hr-2019-05-03.json").read_bytes()
RECEIVED = 1_783_465_200_000_000  # 2026-07-07T23:00:00Z
HEADERS = {"venue": "binance", "received_at": str(RECEIVED), "http_status": "200"}
OLD_TRADES = HEADERS | {"channel": "historicalTrades", "product_id": "BTC-USDT"}
PRICES = HEADERS | {"channel": "ticker_24hr"}
KNOWN = {
    "BTCUSDT": ("btc", "BTC"),
    "ETHUSDT": ("eth", "ETH"),
    "LTCUSDT": ("ltc", "LTC"),
    "ADAUSDT": ("ada", "ADA"),
    "XRPUSDT": ("xrp", "XRP"),
    "LINKUSDT": ("link", "LINK"),
}

# the documentation's examples, the second one moved to a symbol of the registry
OLD_TRADE = {
    "id": 28457,
    "price": "4.00000100",
    "qty": "12.00000000",
    "quoteQty": "48.000012",
    "time": 1499865549590,
    "isBuyerMaker": True,
    "isBestMatch": True,
}
DAY_OF_ADA = {
    "symbol": "ADAUSDT",
    "priceChange": "-94.99999800",
    "priceChangePercent": "-95.960",
    "lastPrice": "4.00000200",
    "bidPrice": "4.00000000",
    "highPrice": "100.00000000",
    "lowPrice": "0.10000000",
    "volume": "8913.30000000",
    "quoteVolume": "15.30000000",
    "openTime": 1499783499040,
    "closeTime": 1499869899040,
    "firstId": 28385,
    "lastId": 28460,
    "count": 76,
}
ABSENT = object()


def changed(element: dict[str, object], change: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in (element | change).items() if value is not ABSENT}


def items(headers: dict[str, str], page: object) -> tuple[Item, ...]:
    outcome = venues.parse(headers, page if isinstance(page, bytes) else json.dumps(page).encode())
    assert isinstance(outcome, Parsed), outcome
    return outcome.items


def test_a_page_of_old_trades_is_exact_in_its_order_and_of_the_headers_product() -> None:
    bought = OLD_TRADE | {"id": 28458, "isBuyerMaker": False, "time": 1499865549590123}
    first, second = items(OLD_TRADES, [OLD_TRADE, bought])
    assert first == Trade(
        venue="binance",
        product_id="BTC-USDT",
        trade_id=28457,
        price=Decimal("4.000001"),
        size=Decimal(12),
        notional=Decimal("48.000012"),
        taker_side="sell",
        side_raw="buyer is maker",
        event_us=1_499_865_549_590_000,
        sequence=None,
    )
    assert isinstance(second, Trade)
    assert (second.trade_id, second.taker_side, second.side_raw) == (28458, "buy", "seller is maker")
    assert second.event_us == 1_499_865_549_590_123


def test_a_page_of_old_trades_gives_the_trades_of_the_stream() -> None:
    lines = [line for line in STREAM if line.startswith(b'{"stream":"btcusdt@trade"')]
    names = {"id": "t", "price": "p", "qty": "q", "time": "T", "isBuyerMaker": "m", "isBestMatch": "M"}
    page = [{ours: json.loads(line)["data"][theirs] for ours, theirs in names.items()} for line in lines]
    assert len(page) > 100
    assert items(OLD_TRADES, page) == tuple(item for line in lines for item in items(HEADERS, line))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (7, Reason.UNEXPECTED_SHAPE),
        (None, Reason.UNEXPECTED_SHAPE),
        ([], Reason.UNEXPECTED_SHAPE),
        ({}, Reason.MISSING_FIELD),
        (changed(OLD_TRADE, {"id": ABSENT}), Reason.MISSING_FIELD),
        (OLD_TRADE | {"id": 2**63}, Reason.OUT_OF_RANGE),
        (OLD_TRADE | {"id": -1}, Reason.OUT_OF_RANGE),
        (OLD_TRADE | {"id": "28457"}, Reason.WRONG_TYPE),
        (OLD_TRADE | {"price": "0.00000000"}, Reason.NOT_POSITIVE),
        (OLD_TRADE | {"qty": "-12"}, Reason.NOT_POSITIVE),
        (OLD_TRADE | {"qty": None}, Reason.MISSING_FIELD),
        (OLD_TRADE | {"qty": "0." + "0" * 18 + "1"}, Reason.OUT_OF_RANGE),
        (OLD_TRADE | {"price": "9" * 20, "qty": "9" * 20}, Reason.OUT_OF_RANGE),
        (OLD_TRADE | {"isBuyerMaker": "true"}, Reason.WRONG_TYPE),
        (OLD_TRADE | {"time": 1_230_767_999_999}, Reason.TIME_BEFORE_2009),
        (OLD_TRADE | {"time": 1_783_465_260_001}, Reason.TIME_IN_FUTURE),
        (OLD_TRADE | {"time": "2017-07-12T13:19:09Z"}, Reason.BAD_TIME),
    ],
)
def test_one_bad_old_trade_is_refused_by_name_and_its_neighbours_stay(bad: object, reason: Reason) -> None:
    before, refused, after = items(OLD_TRADES, [OLD_TRADE | {"id": 1}, bad, OLD_TRADE | {"id": 3}])
    assert isinstance(refused, RejectedItem)
    assert refused.reason is reason
    assert isinstance(before, Trade)
    assert isinstance(after, Trade)
    assert (before.trade_id, after.trade_id) == (1, 3)


@pytest.mark.parametrize("product", ["", "BTCUSDT", "BTC-USD", "BTC-DOGE"])  # BTC-USD is another venue's
def test_a_page_of_old_trades_must_say_a_product_of_the_venue(product: str) -> None:
    for headers in (OLD_TRADES | {"product_id": product}, {k: v for k, v in OLD_TRADES.items() if k != "product_id"}):
        outcome = venues.parse(headers, json.dumps([OLD_TRADE]).encode())
        assert isinstance(outcome, Unparseable)
        assert outcome.reason is Reason.BAD_HEADERS


def test_the_documentations_24_hour_figures_are_read_to_the_last_digit() -> None:
    expected = AssetPrice(
        source="binance",
        asset_id="ADAUSDT",
        vs_currency="usdt",
        last_updated_us=1_499_869_899_040_000,
        symbol="ada",
        name="ADA",
        price=Decimal("4.000002"),
        market_cap=None,
        market_cap_rank=None,
        fully_diluted_valuation=None,
        volume_24h=Decimal("15.3"),  # of the quote currency, as every other source's
        high_24h=Decimal(100),
        low_24h=Decimal("0.1"),
        change_24h_pct=Decimal("-95.96"),
        circulating_supply=None,
        total_supply=None,
        max_supply=None,
    )
    assert items(PRICES, [DAY_OF_ADA]) == (expected,)
    assert items(PRICES, DAY_OF_ADA) == (expected,)  # the answer where one symbol was asked for
    (sparse,) = items(PRICES, changed(DAY_OF_ADA, {"highPrice": None, "priceChangePercent": ABSENT}))
    assert isinstance(sparse, AssetPrice)
    assert (sparse.high_24h, sparse.low_24h, sparse.change_24h_pct) == (None, Decimal("0.1"), None)


def test_every_figure_of_the_captured_day_equals_its_text_and_unknown_symbols_are_named() -> None:
    elements = json.loads(DAY)
    answers = items(PRICES, DAY)
    assert len(elements) == len(answers) == 510
    known = 0
    for item, element in zip(answers, elements, strict=True):
        if element["symbol"] not in KNOWN:
            assert isinstance(item, RejectedItem)
            assert item.reason is Reason.UNKNOWN_PRODUCT
            assert element["symbol"] in item.detail
            continue
        known += 1
        symbol, name = KNOWN[element["symbol"]]
        assert isinstance(item, AssetPrice)
        assert (item.asset_id, item.symbol, item.name, item.vs_currency) == (element["symbol"], symbol, name, "usdt")
        assert item.last_updated_us == element["closeTime"] * 1000
        assert (item.price, item.volume_24h) == (Decimal(element["lastPrice"]), Decimal(element["quoteVolume"]))
        assert (item.high_24h, item.low_24h) == (Decimal(element["highPrice"]), Decimal(element["lowPrice"]))
        assert item.change_24h_pct == Decimal(element["priceChangePercent"])
    assert known == len(KNOWN)


def test_a_delisted_symbol_has_no_price() -> None:
    delisted = [element for element in json.loads(DAY) if element["count"] == 0]
    assert len(delisted) == 41
    for item in items(PRICES, [element | {"symbol": "ADAUSDT"} for element in delisted]):
        assert isinstance(item, RejectedItem)
        assert item.reason is Reason.NOT_POSITIVE


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("x", Reason.UNEXPECTED_SHAPE),
        (changed(DAY_OF_ADA, {"symbol": ABSENT}), Reason.MISSING_FIELD),
        (DAY_OF_ADA | {"symbol": "adausdt"}, Reason.UNKNOWN_PRODUCT),
        (DAY_OF_ADA | {"lastPrice": "-4"}, Reason.NOT_POSITIVE),
        (DAY_OF_ADA | {"lastPrice": "a lot"}, Reason.WRONG_TYPE),
        (DAY_OF_ADA | {"lastPrice": "1" * 21}, Reason.OUT_OF_RANGE),
        (DAY_OF_ADA | {"quoteVolume": "-1"}, Reason.OUT_OF_RANGE),
        (DAY_OF_ADA | {"highPrice": []}, Reason.WRONG_TYPE),
        (DAY_OF_ADA | {"closeTime": None}, Reason.MISSING_FIELD),
        (DAY_OF_ADA | {"closeTime": 1_230_767_999_999}, Reason.TIME_BEFORE_2009),
        (DAY_OF_ADA | {"closeTime": 1_783_465_260_001}, Reason.TIME_IN_FUTURE),
        (DAY_OF_ADA | {"closeTime": "1499869899040"}, Reason.BAD_TIME),
    ],
)
def test_one_bad_price_is_refused_by_name_and_its_neighbours_stay(bad: object, reason: Reason) -> None:
    before, refused, after = items(PRICES, [DAY_OF_ADA, bad, DAY_OF_ADA | {"symbol": "BTCUSDT"}])
    assert isinstance(refused, RejectedItem)
    assert refused.reason is reason
    assert isinstance(before, AssetPrice)
    assert isinstance(after, AssetPrice)
    assert (before.asset_id, after.asset_id) == ("ADAUSDT", "BTCUSDT")


@pytest.mark.parametrize("price", [None, ABSENT])
def test_a_24_hour_price_that_is_not_there_is_a_null_price_as_at_every_source(price: object) -> None:
    (refused,) = items(PRICES, [changed(DAY_OF_ADA, {"lastPrice": price})])
    assert isinstance(refused, RejectedItem)
    assert refused.reason is Reason.NULL_PRICE


@pytest.mark.parametrize("headers", [OLD_TRADES, PRICES])
def test_an_empty_page_is_ignored_and_a_status_decides_before_the_bytes(headers: dict[str, str]) -> None:
    assert venues.parse(headers, b"[]") == Ignored("empty_page")
    for status in ("403", "418", "429", "451"):
        assert venues.parse(headers | {"http_status": status}, b'{"code":-1003}') == Ignored(f"http_{status}")


@pytest.mark.parametrize("headers", [OLD_TRADES, PRICES])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"code":-1121,"msg":"Invalid symbol."}', Reason.UNEXPECTED_SHAPE),
        (b"null", Reason.UNEXPECTED_SHAPE),
        (b"", Reason.MALFORMED),
        (b"<html>", Reason.MALFORMED),
        (b'{"symbol":"ADAUSDT"', Reason.MALFORMED),
        (b'[{"symbol":"ADAUSDT"}', Reason.MALFORMED),
        (b'["\xff"]', Reason.MALFORMED),
    ],
)
def test_an_answer_that_is_no_page_is_one_named_reject(headers: dict[str, str], value: bytes, reason: Reason) -> None:
    outcome = venues.parse(headers, value)
    assert isinstance(outcome, Unparseable), outcome
    assert outcome.reason is reason


def test_requests_are_canonical_and_hold_no_key() -> None:
    assert binance.historical_trades_request("BTC-USDT", 28457) == (
        "/api/v3/historicalTrades?fromId=28457&limit=1000&symbol=BTCUSDT"
    )
    assert binance.historical_trades_request("ETH-USDT", 0, limit=5) == (
        "/api/v3/historicalTrades?fromId=0&limit=5&symbol=ETHUSDT"
    )
    address = urlsplit(binance.ticker_request(("BTC-USDT", "ETH-USDT")))
    query = parse_qsl(address.query)
    assert address.path == "/api/v3/ticker/24hr"
    assert query == [("symbols", '["BTCUSDT","ETHUSDT"]'), ("type", "FULL")]
    assert address.query.isascii()
    assert not set(address.query) & set('[]", ')  # percent-encoded, so that one text is the one request
