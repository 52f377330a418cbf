"""REST of all venues at a real simulator process: what it tells, what it refuses, and what it does wrong on request."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from simulator_process import Message, Simulator, launcher, microseconds, whole_lines

from tests.integration.services_stage import eventually

PRODUCTS = "BTC-USD,ETH-USD,BTC-USDT,ETH-USDT"
# of each venue one path that has items
PATHS = {
    "coinbase_exchange": "/coinbase_exchange/products/BTC-USD/trades?limit=5",
    "coinbase_advanced": "/coinbase_advanced/api/v3/brokerage/market/products/BTC-USD/ticker?limit=5",
    "binance": "/binance/api/v3/historicalTrades?symbol=BTCUSDT&limit=5",
    "coingecko": "/coingecko/api/v3/coins/markets?vs_currency=usd&per_page=5",
    "coincap": "/coincap/v3/assets?limit=5",
    "cryptocompare": "/cryptocompare/data/pricemultifull?fsyms=BTC,ETH&tsyms=USD",
}
TICKER = "/binance/api/v3/ticker/24hr"
# a word of the body with which each venue says that it is asked too often, and that it has failed
WORDS = {
    "coinbase_exchange": ("Public rate limit exceeded", "Internal server error"),
    "coinbase_advanced": ("RESOURCE_EXHAUSTED", "INTERNAL"),
    "binance": ("-1003", "-1000"),
    "coingecko": ("error_code", "Internal Server Error"),
    "coincap": ("exceeded your request limit", "Internal server error"),
    "cryptocompare": ("over your rate limit", "Internal server error"),
}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with launcher(tmp_path_factory.mktemp("home")) as launch:
        running = launch(keyless_calls_per_minute=0, products=PRODUCTS)
        while len(running.truth()) < 4 or min(map(len, running.truth().values())) < 50:
            time.sleep(0.05)
        yield running
        assert running.stop() == 0


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    with launcher(tmp_path) as starting:
        yield starting


def order(simulator: Simulator, venue: str, fault: str, **more: object) -> None:
    status, answer, _ = simulator.post("/control/faults", {"venue": venue, "fault": fault, **more})
    assert status == 200, answer


def told_prices(simulator: Simulator, source: str) -> dict[tuple[str, str, int], tuple[Decimal, Decimal | None]]:
    """The truth file as it is at this moment, which is after an answer has come."""
    facts = [json.loads(line, parse_float=str) for line in whole_lines(simulator.home / "truth/prices.ndjson")]
    return {
        (fact["asset_id"], fact["vs_currency"], fact["last_updated_us"]): (
            Decimal(fact["price"]),
            None if fact["market_cap"] is None else Decimal(fact["market_cap"]),
        )
        for fact in facts
        if fact["source"] == source
    }


def test_binances_old_trades_are_the_truth_id_by_id(simulator: Simulator) -> None:
    next_id, items = 0, []
    while page := simulator.get(f"/binance/api/v3/historicalTrades?symbol=BTCUSDT&fromId={next_id}&limit=23")[1]:
        items += page
        next_id = items[-1]["id"] + 1
        if len(items) > 200:
            break
    truth = simulator.truth()["BTC-USDT"]
    assert [item["id"] for item in items] == list(range(min(truth), min(truth) + len(items)))
    for item in items:
        fact = truth[item["id"]]
        assert (Decimal(item["price"]), Decimal(item["qty"])) == (Decimal(fact["price"]), Decimal(fact["size"]))
        assert (item["time"] * 1000, item["isBuyerMaker"]) == (fact["event_us"], fact["taker_side"] == "sell")


def test_advanced_trades_ids_are_coinbase_exchanges(simulator: Simulator) -> None:
    page = simulator.get(PATHS["coinbase_advanced"])[1]
    truth = simulator.truth()["BTC-USD"]
    assert [entry["side"] for entry in page["trades"]] == [
        {"buy": "SELL", "sell": "BUY"}[truth[int(entry["trade_id"])]["taker_side"]] for entry in page["trades"]
    ]
    second = microseconds(page["trades"][0]["time"]) // 1_000_000 - 1
    path = PATHS["coinbase_advanced"].replace("limit=5", f"limit=1000&start={second}&end={second}")
    told = [int(entry["trade_id"]) for entry in simulator.get(path)[1]["trades"]]
    assert told == sorted((i for i, fact in truth.items() if fact["event_us"] // 1_000_000 == second), reverse=True)


@pytest.mark.parametrize(
    ("path", "volume_of"),
    [
        ("/binance/api/v3/klines?symbol=ETHUSDT&interval=1d", lambda page: (page[-1][5], page[-1][8])),
        ("/coinbase_exchange/products/ETH-USD/candles?granularity=86400", lambda page: (page[0][5], None)),
        (
            "/cryptocompare/data/v2/histominute?fsym=ETH&tsym=USD",
            lambda page: (sum(row["volumefrom"] for row in page["Data"]["Data"]), None),
        ),
    ],
)
def test_candles_follow_the_market(simulator: Simulator, path: str, volume_of: Callable[..., tuple[str, int]]) -> None:
    product = "ETH-USDT" if "ETHUSDT" in path else "ETH-USD"
    before = [Decimal(trade["size"]) for trade in simulator.truth()[product].values()]

    def told() -> tuple[Decimal, int | None] | None:
        volume, count = volume_of(simulator.get(path)[1])
        # a page tells what is safe on the disk, and the file may be some lines ahead of that
        return (Decimal(volume), count) if Decimal(volume) >= sum(before) else None

    volume, count = eventually(told, "a page with what the truth held")
    after = [Decimal(trade["size"]) for trade in simulator.truth()[product].values()]
    assert sum(before) <= volume <= sum(after)
    assert count is None or len(before) <= count <= len(after)


def test_a_price_that_a_page_makes_is_in_the_truth_when_the_page_comes(simulator: Simulator) -> None:
    for _ in range(20):
        page = simulator.get("/coincap/v3/assets?limit=50")[1]
        facts = told_prices(simulator, "coincap")
        for asset in page["data"]:
            told = Decimal(asset["priceUsd"]), Decimal(asset["marketCapUsd"])
            assert facts[asset["id"], "usd", page["timestamp"] * 1000] == told
        symbols = simulator.get(TICKER)[1]
        facts = told_prices(simulator, "binance")
        for entry in symbols:
            assert facts[entry["symbol"], "usdt", entry["closeTime"] * 1000] == (Decimal(entry["lastPrice"]), None)
            assert entry["lastId"] - entry["firstId"] + 1 == entry["count"] > 0
        raw = simulator.get(PATHS["cryptocompare"])[1]["RAW"]
        facts = told_prices(simulator, "cryptocompare")
        for symbol in ("BTC", "ETH"):
            figures = raw[symbol]["USD"]
            assert facts[symbol, "usd", figures["LASTUPDATE"] * 1_000_000] == (figures["PRICE"], figures["MKTCAP"])


def test_a_market_with_such_facts_starts_again(launch: Callable[..., Simulator]) -> None:
    for _ in range(2):
        running = launch(products=PRODUCTS)
        while len(running.truth()) < 4:
            time.sleep(0.05)
        assert len(running.get(TICKER)[1]) == 2
        # after a restart a coin has no price before its next refresh
        while not running.get(PATHS["coincap"])[1]["data"]:
            time.sleep(0.1)
        running.kill()
        before = told_prices(running, "coincap")
    assert len({at for _, _, at in before}) == 2, "one page that had any, of each run"


def test_binances_weights_end_in_a_429_with_the_time_to_wait(launch: Callable[..., Simulator]) -> None:
    running = launch(products=PRODUCTS)
    for _ in range(800):  # a minute that turns on the way begins anew
        status, body, headers = running.get("/binance/api/v3/historicalTrades?symbol=BTCUSDT&limit=1")
        assert (status == 200) is (int(headers["x-mbx-used-weight-1m"]) <= 6000)
        if status != 200:
            break
    assert (status, body["code"]) == (429, -1003)
    assert 1 <= int(headers["retry-after"]) <= 61
    assert running.get(PATHS["coinbase_exchange"])[0] == 200


def test_keys_are_wanted_where_they_are_configured(launch: Callable[..., Simulator]) -> None:
    running = launch(coincap_key_required=True, cryptocompare_key_required=True, cryptocompare_calls_per_minute=2)
    coincap, compare = PATHS["coincap"], PATHS["cryptocompare"]
    assert (running.get(coincap)[0], running.get(compare)[0]) == (401, 401)
    assert running.get(compare)[1]["Data"] == {}
    assert running.get(coincap, {"authorization": "Bearer key"})[0] == 200
    assert running.get(f"{coincap}&apiKey=key")[0] == 200
    assert "RAW" in running.get(compare, {"authorization": "Apikey key"})[1]
    assert "RAW" in running.get(f"{compare}&api_key=key")[1]
    status, body, _ = running.get(f"{compare}&api_key=key")
    assert (status, body["Response"], body["Type"]) == (200, "Error", 99)


@pytest.mark.parametrize("venue", PATHS)
def test_each_venue_is_busy_and_fails_in_its_own_words(simulator: Simulator, venue: str) -> None:
    busy, failed = WORDS[venue]
    order(simulator, venue, "http_429", count=2, retry_after=7)
    for _ in range(2):
        status, body, headers = simulator.get(PATHS[venue])
        assert (status, headers["retry-after"], busy in json.dumps(body)) == (429, "7", True)
    order(simulator, venue, "http_5xx")
    status, body, _ = simulator.get(PATHS[venue])
    assert (status, failed in json.dumps(body)) == (500, True)
    assert simulator.get(PATHS[venue])[0] == 200


def test_binances_ban_says_for_how_long(simulator: Simulator) -> None:
    order(simulator, "binance", "http_418", retry_after=120)
    status, body, headers = simulator.get(PATHS["binance"])
    assert (status, body["code"], headers["retry-after"]) == (418, -1003, "120")
    assert simulator.get(PATHS["binance"])[0] == 200


@pytest.mark.parametrize("venue", PATHS)
def test_a_slow_body_is_whole_and_late_for_who_waits(simulator: Simulator, venue: str) -> None:
    order(simulator, venue, "slow_body", count=1, seconds=1)
    started = time.monotonic()
    with urllib.request.urlopen(simulator.rest + PATHS[venue], timeout=20) as answer:
        headers_after_s = time.monotonic() - started
        body = answer.read()
    assert headers_after_s < 0.7 < time.monotonic() - started
    assert len(json.loads(body)) > 0


def test_a_slow_body_without_a_length_of_its_own_outlasts_a_clients_patience(simulator: Simulator) -> None:
    order(simulator, "coincap", "slow_body")
    answer = urllib.request.urlopen(simulator.rest + PATHS["coincap"], timeout=20)
    length, started, read = int(answer.headers["content-length"]), time.monotonic(), b""
    while time.monotonic() - started < 1.5:
        read += answer.read1(4096)
    answer.close()
    assert 0 < len(read) < length / 5, "25 s for all of it"


@pytest.mark.parametrize("venue", [venue for venue in PATHS if venue != "coinbase_exchange"])
def test_a_connection_is_cut_or_stalls(simulator: Simulator, venue: str) -> None:
    order(simulator, venue, "disconnect", channel="rest")
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        simulator.get(PATHS[venue])
    order(simulator, venue, "stall", channel="rest", count=1, seconds=0.6)
    started = time.monotonic()
    assert simulator.get(PATHS[venue])[0] == 200
    assert time.monotonic() - started > 0.5


def test_an_order_for_pages_leaves_the_feed_alone(simulator: Simulator) -> None:
    order(simulator, "coinbase_exchange", "disconnect", channel="rest")
    assert simulator.get("/control/status")[1]["faults_active"] != []
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        simulator.get(PATHS["coinbase_exchange"])
    order(simulator, "coinbase_exchange", "wrong_type", channel="rest")
    time.sleep(0.3)  # the feed is sent meanwhile
    assert isinstance(simulator.get(PATHS["coinbase_exchange"])[1][-1]["price"], list)


@pytest.mark.parametrize("venue", ["coinbase_exchange", "coinbase_advanced", "binance"])
def test_a_hole_is_a_lie_of_one_page(simulator: Simulator, venue: str) -> None:
    def ids() -> list[int]:
        page = simulator.get(PATHS[venue])[1]
        trades = page["trades"] if venue == "coinbase_advanced" else page
        return sorted(int(trade.get("trade_id") or trade["id"]) for trade in trades)

    order(simulator, venue, "page_hole")
    first, second, fourth, fifth = ids()
    assert (second - first, fourth - second, fifth - fourth) == (1, 2, 1)
    whole = ids()
    assert whole == list(range(whole[0], whole[0] + 5))


@pytest.mark.parametrize("venue", PATHS)
@pytest.mark.parametrize(("fault", "body"), [("empty_array", []), ("empty_object", {})])
def test_nothing_at_all_comes_with_status_200(simulator: Simulator, venue: str, fault: str, body: object) -> None:
    order(simulator, venue, fault)
    assert simulator.get(PATHS[venue])[:2] == (200, body)
    assert len(simulator.get(PATHS[venue])[1]) > 0


def test_by_chance_a_page_tells_another_currency_and_the_truth_does_not(launch: Callable[..., Simulator]) -> None:
    running = launch(faults='{"currency_switch": 0.5}', keyless_calls_per_minute=0, products=PRODUCTS)
    switched = 0
    for _ in range(60):
        page = running.get("/coincap/v3/assets?ids=tether")[1]
        facts = told_prices(running, "coincap")
        true, told = facts["tether", "usd", page["timestamp"] * 1000][0], Decimal(page["data"][0]["priceUsd"])
        assert told == true or float(told) == pytest.approx(float(true) / 1.08, rel=1e-4)
        switched += told != true
    assert 10 < switched < 50
    done = running.get("/control/status")[1]["faults_done"]
    assert done == {"coincap:currency_switch": switched}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"fault": "http_418", "venue": "coingecko"}, "http_418 is a ban of binance"),
        ({"fault": "currency_switch", "venue": "binance"}, "currency_switch is a fault of an aggregator's page"),
        ({"fault": "page_hole", "venue": "coincap"}, "page_hole is a fault of REST trades"),
        ({"fault": "drop", "venue": "cryptocompare"}, "drop is a fault of a feed"),
        ({"fault": "reorder", "venue": "binance", "channel": "rest"}, "a page cannot do it"),
        ({"fault": "http_429", "venue": "coinbase_exchange", "channel": "matches"}, "is a fault of an answer to a"),
        ({"fault": "page_hole", "channel": "matches"}, "is a fault of an answer to a request"),
        ({"fault": "http_429", "venue": "coingecko", "product": "BTC-USD"}, "a page of coingecko has many assets"),
        ({"fault": "disconnect", "venue": "binance", "count": 7}, "count means nothing to it"),
        ({"fault": "half_frame", "venue": "binance", "product": "BTC-USDT"}, "product means nothing to it"),
        ({"fault": "late", "venue": "binance", "seconds": 1e308}, "<= 86400"),
    ],
)
def test_what_a_venue_cannot_do_is_refused_with_a_sentence(simulator: Simulator, body: Message, words: str) -> None:
    status, answer, _ = simulator.post("/control/faults", body)
    assert (status, words in answer["error"]) == (400, True)
    assert simulator.get("/control/status")[1]["faults_active"] == []
