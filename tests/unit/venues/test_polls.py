"""What each polled source is asked, with which key, and nothing secret where it could be kept."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from marketflow.contracts.products import PRODUCTS
from marketflow.settings import Settings
from marketflow.venues import binance, coingecko, cryptocompare
from marketflow.venues.polls import POLLS

KEYS = {"coingecko_api_key": "secret", "coincap_api_key": "secret", "cryptocompare_api_key": "secret"}


def settings(**changes: object) -> Settings:
    return Settings(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("assets", "pages", "per_page"),
    [(1, 1, 1), (100, 1, 100), (250, 1, 250), (251, 2, 126), (300, 2, 150), (1000, 4, 250)],
)
def test_pages_bring_at_least_the_assets_asked_for(assets: int, pages: int, per_page: int) -> None:
    assert coingecko.pages_per_currency(assets) == (pages, per_page)
    assert pages * per_page >= assets
    assert per_page <= 250


def test_a_poll_of_coingecko_is_every_page_in_every_currency() -> None:
    found = POLLS["coingecko"].requests(settings(coingecko_assets=300, vs_currencies="usd,eur"))
    assert [(one.vs_currency, one.page, one.units) for one in found] == [
        ("usd", 1, 1),
        ("usd", 2, 1),
        ("eur", 1, 1),
        ("eur", 2, 1),
    ]
    assert found[3].text == "/coins/markets?order=market_cap_desc&page=2&per_page=150&precision=18&vs_currency=eur"


def test_a_poll_of_coincap_is_one_page() -> None:
    (one,) = POLLS["coincap"].requests(settings(coincap_assets=2000))
    assert (one.text, one.page, one.vs_currency) == ("/assets?limit=2000&offset=0", 1, None)


def test_a_poll_of_cryptocompare_is_as_many_calls_as_its_lists_need() -> None:
    names = tuple(f"COIN{number}" for number in range(100))
    found = POLLS["cryptocompare"].requests(settings(cryptocompare_symbols=names, vs_currencies="usd,eur"))
    asked = [parse_qs(urlsplit(one.text).query) for one in found]
    assert [one["tsyms"] for one in asked] == [["USD,EUR"]] * 3
    assert ",".join(one["fsyms"][0] for one in asked) == ",".join(names)
    assert max(len(one["fsyms"][0]) for one in asked) <= cryptocompare.MAX_SYMBOLS_TEXT
    assert [one.page for one in found] == [1, 2, 3]


@pytest.mark.parametrize(
    ("dataset", "symbols"),
    [
        ("sim", ["BTCUSDT", "ETHUSDT"]),
        ("live", [product.names["binance"] for product in PRODUCTS.values() if "binance" in product.names]),
    ],
)
def test_binances_poll_is_the_products_asked_for_and_live_all_of_the_registry(dataset: str, symbols: list[str]) -> None:
    (one,) = POLLS["binance_prices"].requests(settings(dataset=dataset))
    path, query = urlsplit(one.text).path, parse_qs(urlsplit(one.text).query)
    assert path == "/api/v3/ticker/24hr"
    assert json.loads(query["symbols"][0]) == symbols
    assert one.units == 2
    assert len(symbols) >= 2


def test_without_a_product_of_binance_nothing_is_asked() -> None:
    assert POLLS["binance_prices"].requests(settings(products="BTC-USD")) == ()


@pytest.mark.parametrize(("symbols", "weight"), [(1, 2), (20, 2), (21, 40), (100, 40), (101, 80)])
def test_the_weight_of_a_ticker_goes_by_its_symbols(symbols: int, weight: int) -> None:
    assert binance.ticker_weight(symbols) == weight


@pytest.mark.parametrize(
    ("name", "changes", "headers"),
    [
        ("coingecko", {"coingecko_plan": "demo"}, {"x-cg-demo-api-key": "secret"}),
        ("coingecko", {"coingecko_plan": "pro"}, {"x-cg-pro-api-key": "secret"}),
        ("coingecko", {"coingecko_plan": "keyless"}, {}),
        ("coincap", {}, {"authorization": "Bearer secret"}),
        ("cryptocompare", {}, {"authorization": "Apikey secret"}),
        ("binance_prices", {}, {}),
    ],
)
def test_the_key_goes_into_the_header_of_its_plan_and_into_no_request(
    name: str, changes: dict[str, object], headers: dict[str, str]
) -> None:
    asked = settings(**KEYS, **changes)
    assert POLLS[name].key_headers(asked) == headers
    assert POLLS[name].key_headers(settings()) == {}
    assert all("secret" not in one.text for one in POLLS[name].requests(asked))


def limited(**made: int) -> bytes:
    most = {"second": 20, "minute": 300, "hour": 3000, "day": 10000, "month": 75000}
    return json.dumps(
        {
            "Response": "Error",
            "Message": "You are over your rate limit please upgrade your account!",
            "Type": 99,
            "RateLimit": {"calls_made": {"second": 1, "minute": 2, "hour": 2, **made}, "max_calls": most},
            "Data": {},
        }
    ).encode()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (limited(day=10001, month=20000), 86_400.0),
        (limited(second=20, minute=300), 60.0),
        (limited(), 60.0),  # it does not say which window is full
        (b'{"Response":"Error","Message":"You are over your RATE LIMIT"}', 60.0),
        (b'{"Data":{},"Err":{"message":"rate limit"}}', 60.0),
        (b'{"Response":"Error","Message":"fsyms param is empty","Type":2}', None),
        (b'{"RAW":{},"Message":"no rate limit"}', None),
        (b"[]", None),
        (b"", None),
    ],
)
def test_too_many_calls_with_status_200_ask_cryptocompares_poller_to_wait(value: bytes, seconds: float | None) -> None:
    assert POLLS["cryptocompare"].asks_to_wait_s(value) == seconds
    assert POLLS["coingecko"].asks_to_wait_s(value) is None
