"""The simulator's REST of a real process: trades paged from all history, pages of coins equal to the truth."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from simulator_process import (
    Message,
    Simulator,
    assert_same_trade,
    launcher,
    microseconds,
    price_truth,
)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """One process for the tests that leave it whole."""
    with launcher(tmp_path_factory.mktemp("home")) as launch:
        running = launch(keyless_calls_per_minute=0)
        yield running
        assert running.stop() == 0


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    """Simulators of the test's own."""
    with launcher(tmp_path) as starting:
        yield starting


def test_rest_pages_back_through_the_whole_history(simulator: Simulator) -> None:
    while len(simulator.truth().get("BTC-USD", ())) < 60:
        time.sleep(0.05)
    newest = simulator.get("/coinbase_exchange/products/BTC-USD/trades?limit=1")[1][0]["trade_id"]
    items, cursor = [], newest + 1
    while True:
        _, page, headers = simulator.get(f"/coinbase_exchange/products/BTC-USD/trades?limit=17&after={cursor}")
        if not page:
            break
        assert (headers["cb-before"], headers["cb-after"]) == (str(page[0]["trade_id"]), str(page[-1]["trade_id"]))
        items += page
        cursor = int(headers["cb-after"])
    truth = simulator.truth()["BTC-USD"]
    assert [item["trade_id"] for item in items] == list(range(newest, min(truth) - 1, -1))
    for item in items:
        assert list(item) == ["time", "trade_id", "price", "size", "side"]
        assert_same_trade(item, truth[item["trade_id"]])


def test_rest_before_stops_above_the_cursor(simulator: Simulator) -> None:
    newest = simulator.get("/coinbase_exchange/products/ETH-USD/trades?limit=1")[1][0]["trade_id"]
    _, page, _ = simulator.get(f"/coinbase_exchange/products/ETH-USD/trades?after={newest + 1}&before={newest - 3}")
    assert [item["trade_id"] for item in page] == [newest, newest - 1, newest - 2]


@pytest.mark.parametrize(
    ("path", "status"), [("NO-SUCH/trades", 404), ("BTC-USD/trades?limit=1001", 400), ("BTC-USD/trades?after=x", 400)]
)
def test_rest_refuses_what_the_exchange_refuses(simulator: Simulator, path: str, status: int) -> None:
    assert simulator.get(f"/coinbase_exchange/products/{path}")[0] == status


def test_rest_lists_the_products(simulator: Simulator) -> None:
    listed = simulator.get("/coinbase_exchange/products")[1]
    assert [(entry["id"], entry["quote_increment"]) for entry in listed] == [("BTC-USD", "0.01"), ("ETH-USD", "0.01")]


def markets(simulator: Simulator, query: str = "") -> list[Message]:
    status, page, _ = simulator.get(f"/coingecko/api/v3/coins/markets?vs_currency=usd&per_page=250{query}")
    assert status == 200
    return list(page)


def test_pages_cover_all_coins_once_and_equal_the_truth(simulator: Simulator) -> None:
    first = [page["id"] for page in markets(simulator)]
    second = [page["id"] for page in markets(simulator, "&page=2")]
    assert (len(first), set(first) & set(second), markets(simulator, "&page=3")) == (250, set(), [])
    raw = urllib.request.urlopen(
        f"{simulator.rest}/coingecko/api/v3/coins/markets?vs_currency=usd&per_page=250", timeout=20
    ).read()
    items = json.loads(raw, parse_float=str, parse_int=str)  # the numbers' own text
    truth = price_truth(simulator)
    for item in items:
        fact = truth[item["id"], microseconds(item["last_updated"])]
        assert fact == (item["current_price"], item["market_cap"])
    assert (items[0]["id"], items[1]["id"]) == ("bitcoin", "ethereum")


def test_ids_and_order_choose_coins(simulator: Simulator) -> None:
    assert [coin["id"] for coin in markets(simulator, "&ids=tether,bitcoin")] == ["bitcoin", "tether"]
    assert [coin["id"] for coin in markets(simulator, "&ids=tether,bitcoin&order=id_desc")] == ["tether", "bitcoin"]


def test_a_missing_currency_is_the_captured_error(simulator: Simulator) -> None:
    status, body, _ = simulator.get("/coingecko/api/v3/coins/markets")
    assert (status, body) == (422, {"error": "Missing parameter vs_currency"})


def test_the_keyless_limit_is_a_429_and_a_key_lifts_it(launch: Callable[..., Simulator]) -> None:
    running = launch(keyless_calls_per_minute=2)
    path = "/coingecko/api/v3/coins/markets?vs_currency=usd&per_page=1"
    assert [running.get(path)[0] for _ in range(3)] == [200, 200, 429]
    status, body, headers = running.get(path)
    assert (status, body["status"]["error_code"]) == (429, 429)
    assert 1 <= int(headers["retry-after"]) <= 61
    assert running.get(path, {"x-cg-demo-api-key": "key"})[0] == 200
    assert running.get(f"{path}&x_cg_pro_api_key=key")[0] == 200
