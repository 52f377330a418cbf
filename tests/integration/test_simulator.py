"""A real simulator process, judged by its files and by what an independent reader of its sockets sees."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PRODUCTS = ("BTC-USD", "ETH-USD")
READY = re.compile(r"simulator ready: (?P<ws>ws://\S+) (?P<rest>http://\S+)")
SUBSCRIBE = {"type": "subscribe", "product_ids": list(PRODUCTS), "channels": ["matches", "ticker", "heartbeat"]}
Message = dict[str, Any]


@dataclass
class Simulator:
    process: subprocess.Popen[str]
    home: Path
    ws: str
    rest: str

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any, dict[str, str]]:
        return self._call(urllib.request.Request(self.rest + path, headers=headers or {}))

    def post(self, path: str, body: Message | None = None) -> tuple[int, Any, dict[str, str]]:
        return self._call(urllib.request.Request(self.rest + path, json.dumps(body or {}).encode(), method="POST"))

    @staticmethod
    def _call(request: urllib.request.Request) -> tuple[int, Any, dict[str, str]]:
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, body, headers = answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            status, body, headers = error.code, error.read(), error.headers
        return status, json.loads(body, parse_float=Decimal), {k.lower(): v for k, v in headers.items()}

    def truth(self) -> dict[str, dict[int, Message]]:
        trades: dict[str, dict[int, Message]] = {}
        for line in (self.home / "truth/trades.ndjson").read_text().splitlines():
            trade = json.loads(line)
            ids = trades.setdefault(trade["product_id"], {})
            assert trade["trade_id"] not in ids, f"{trade['product_id']} {trade['trade_id']} is there twice"
            ids[trade["trade_id"]] = trade
        return trades

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)


def environment(home: Path, **knobs: object) -> dict[str, str]:
    ports = {"WS_PORT": 0, "REST_PORT": 0}
    own = {f"MARKETFLOW_SIMULATOR_{name.upper()}": str(value) for name, value in {**ports, **knobs}.items()}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
    return {**inherited, **own, "MARKETFLOW_HOME": str(home)}


def start(home: Path, **knobs: object) -> Simulator:
    process = subprocess.Popen(
        [sys.executable, "-m", "marketflow.simulator"],
        env=environment(home, **knobs),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    ready = READY.fullmatch(line.strip())
    assert ready, f"not a ready line: {line!r}, exit status {process.poll()}"
    return Simulator(process, home, ready["ws"], ready["rest"])


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """A fast market without the tape, shared by the tests that leave it whole."""
    running = start(tmp_path_factory.mktemp("home"), rate=100, tick_ms=20, tape=False, keyless_calls_per_minute=0)
    yield running
    assert running.stop() == 0


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    """Simulators of the test's own, on one home."""
    started: list[Simulator] = []

    def _launch(**knobs: object) -> Simulator:
        started.append(start(tmp_path, **{"rate": 100, "tick_ms": 20, "tape": False, **knobs}))
        return started[-1]

    yield _launch
    for running in started:
        if running.process.poll() is None:
            running.kill()


async def read(ws: str, until: Callable[[list[Message]], bool], subscribe: Message = SUBSCRIBE) -> list[Message]:
    """All messages of one connection, up to and with the one that makes `until` true. Broken JSON is kept as text."""
    messages: list[Message] = []
    async with asyncio.timeout(30), connect(ws, compression=None, max_size=2**24, max_queue=None) as socket:
        await socket.send(json.dumps(subscribe))
        while not until(messages):
            text = await socket.recv()
            try:
                messages.append(json.loads(text))
            except json.JSONDecodeError:
                messages.append({"type": "broken", "text": text})
    return messages


def count_of(message_type: str, wanted: int) -> Callable[[list[Message]], bool]:
    return lambda messages: sum(message.get("type") == message_type for message in messages) >= wanted


def of_type(messages: list[Message], message_type: str) -> list[Message]:
    return [message for message in messages if message.get("type") == message_type]


def microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def assert_same_trade(match: Message, truth: Message) -> None:
    assert Decimal(match["price"]) == Decimal(truth["price"])
    assert Decimal(match["size"]) == Decimal(truth["size"])
    assert {match["side"], truth["taker_side"]} == {"buy", "sell"}, "a match tells the maker's side"
    assert microseconds(match["time"]) == truth["event_us"]


def assert_contiguous(truth: dict[str, dict[int, Message]]) -> None:
    assert set(truth) == set(PRODUCTS)
    for trades in truth.values():
        assert sorted(trades) == list(range(min(trades), max(trades) + 1))
        in_order = [trades[trade_id] for trade_id in sorted(trades)]
        for earlier, later in pairwise(in_order):
            assert earlier["sequence"] < later["sequence"]
            assert earlier["event_us"] <= later["event_us"] <= later["market_us"]


# ---- the feed


async def test_every_match_on_the_wire_equals_the_truth_and_none_is_missing(simulator: Simulator) -> None:
    messages = await read(simulator.ws, count_of("match", 200))
    truth = simulator.truth()
    assert messages[0]["type"] == "subscriptions"
    for product in PRODUCTS:
        [last] = [entry for entry in of_type(messages, "last_match") if entry["product_id"] == product]
        matches = [entry for entry in of_type(messages, "match") if entry["product_id"] == product]
        ids = [entry["trade_id"] for entry in matches]
        assert ids == list(range(last["trade_id"] + 1, last["trade_id"] + 1 + len(ids)))
        assert len(ids) > 20
        for match in [last, *matches]:
            assert_same_trade(match, truth[product][match["trade_id"]])
            assert match["sequence"] == truth[product][match["trade_id"]]["sequence"]


async def test_a_ticker_tells_the_takers_side_and_the_book_after_its_match(simulator: Simulator) -> None:
    messages = await read(simulator.ws, count_of("ticker", 200))
    matches = {(entry["product_id"], entry["sequence"]): entry for entry in of_type(messages, "match")}
    pairs = [
        (matches[ticker["product_id"], ticker["sequence"]], ticker)
        for ticker in of_type(messages, "ticker")
        if (ticker["product_id"], ticker["sequence"]) in matches
    ]
    assert len(pairs) > 150
    for match, ticker in pairs:
        assert {match["side"], ticker["side"]} == {"buy", "sell"}
        assert (match["trade_id"], match["time"], match["price"], match["size"]) == (
            ticker["trade_id"],
            ticker["time"],
            ticker["price"],
            ticker["last_size"],
        )
        price, bid, ask = (Decimal(ticker[name]) for name in ("price", "best_bid", "best_ask"))
        assert bid < ask
        assert price <= ask if ticker["side"] == "buy" else price >= bid
        assert min(Decimal(ticker["best_bid_size"]), Decimal(ticker["best_ask_size"])) > 0
        assert Decimal(ticker["low_24h"]) <= price <= Decimal(ticker["high_24h"])


async def test_a_heartbeat_names_the_last_trade_of_its_second(simulator: Simulator) -> None:
    messages = await read(simulator.ws, count_of("heartbeat", 6))
    truth = simulator.truth()
    beats = of_type(messages, "heartbeat")
    assert len({beat["time"] for beat in beats}) >= 3
    for beat in beats:
        trades = truth[beat["product_id"]].values()
        second_us = microseconds(beat["time"])
        assert second_us % 1_000_000 == 0
        assert beat["last_trade_id"] == max(t["trade_id"] for t in trades if t["event_us"] <= second_us)
        assert beat["sequence"] > max(t["sequence"] for t in trades if t["event_us"] <= second_us)
        assert all(t["sequence"] > beat["sequence"] for t in trades if t["event_us"] > second_us)


async def test_channels_may_be_objects_with_products_of_their_own(simulator: Simulator) -> None:
    request = {
        "type": "subscribe",
        "product_ids": ["ETH-USD"],
        "channels": ["heartbeat", {"name": "matches", "product_ids": ["BTC-USD"]}],
    }
    messages = await read(simulator.ws, count_of("heartbeat", 2), request)
    assert messages[0]["channels"] == [
        {"name": "matches", "product_ids": ["BTC-USD"], "account_ids": None},
        {"name": "heartbeat", "product_ids": ["ETH-USD"], "account_ids": None},
    ]
    heard = {(entry["type"], entry["product_id"]) for entry in messages[1:]}
    assert heard == {("last_match", "BTC-USD"), ("match", "BTC-USD"), ("heartbeat", "ETH-USD")}


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"type": "subscribe", "product_ids": ["NO-SUCH"], "channels": ["matches"]}, "NO-SUCH is not a valid product"),
        ({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["full"]}, "full is not a valid channel"),
        ({"type": "subscribe", "channels": ["matches"]}, "matches requires at least one product_id"),
        ({"type": "sing"}, "Type sing is not known"),
    ],
)
async def test_a_wrong_subscription_is_answered_with_its_reason(
    simulator: Simulator, request_: Message, reason: str
) -> None:
    [error] = await read(simulator.ws, lambda messages: len(messages) == 1, request_)
    assert error == {"type": "error", "message": "Failed to subscribe", "reason": reason}


async def test_a_client_that_does_not_subscribe_in_time_is_closed(launch: Callable[..., Simulator]) -> None:
    running = launch(subscribe_within_s=0.3)
    async with connect(running.ws, compression=None) as socket:
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1008


async def test_another_path_is_no_feed(simulator: Simulator) -> None:
    with pytest.raises(InvalidStatus, match="404"):
        async with connect(simulator.ws.replace("coinbase_exchange", "elsewhere")):
            pass


async def test_a_reader_that_does_not_read_is_cut(launch: Callable[..., Simulator]) -> None:
    running = launch(rate=5000, slow_reader_bytes=100_000)
    async with connect(running.ws, compression=None, max_queue=1, close_timeout=0.1) as socket:
        await socket.send(json.dumps(SUBSCRIBE))
        while running.get("/control/status")[1]["slow_readers_cut"] == 0:
            await asyncio.sleep(0.05)
    assert running.get("/control/status")[1]["clients"] == 0


# ---- REST


def test_rest_pages_back_through_the_whole_history(simulator: Simulator) -> None:
    while len(simulator.truth()["BTC-USD"]) < 60:
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


# ---- prices


def markets(simulator: Simulator, query: str = "") -> list[Message]:
    status, page, _ = simulator.get(f"/coingecko/api/v3/coins/markets?vs_currency=usd&per_page=250{query}")
    assert status == 200
    return list(page)


def price_truth(simulator: Simulator) -> dict[tuple[str, int], tuple[str, str]]:
    lines = (simulator.home / "truth/prices.ndjson").read_text().splitlines()
    facts = [json.loads(line) for line in lines]
    assert {(fact["source"], fact["vs_currency"]) for fact in facts} == {("coingecko", "usd")}
    keyed = {(fact["asset_id"], fact["last_updated_us"]): (fact["price"], fact["market_cap"]) for fact in facts}
    assert len(keyed) == len(facts), "one line for each (asset, last_updated)"
    return keyed


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


# ---- the process


async def test_kill_9_and_restart_leave_no_hole_and_no_double_id(launch: Callable[..., Simulator]) -> None:
    last_before: dict[str, int] = {}
    killed_us = started_us = 0
    for _ in range(3):
        running = launch(rate=2000)
        wanted = 1500
        messages = await read(running.ws, count_of("match", wanted))
        if last_before:
            told = {entry["product_id"]: entry["trade_id"] for entry in of_type(messages, "last_match")}
            assert all(told[product] >= last_before[product] for product in PRODUCTS)
            between = [
                trade
                for trades in running.truth().values()
                for trade in trades.values()
                if killed_us < trade["event_us"] <= started_us
            ]
            assert between == [], "nothing is traded while it is down"
        running.kill()
        killed_us = time.time_ns() // 1000
        # what a kill in the middle of a write leaves behind
        with (running.home / "truth/trades.ndjson").open("ab") as file:
            file.write(b'{"venue":"coinbase_exchange","product_id":"BTC-USD","trade_id":1')
        with (running.home / "truth/prices.ndjson").open("ab") as file:
            file.write(b'{"source":"coin')
        received = {product: [] for product in PRODUCTS}
        for match in of_type(messages, "match"):
            received[match["product_id"]].append(match["trade_id"])
        last_before = {product: max(ids) for product, ids in received.items()}
        time.sleep(0.2)
        started_us = time.time_ns() // 1000
    running = launch(rate=2000)
    await read(running.ws, count_of("match", 10))
    assert running.stop() == 0
    assert_contiguous(running.truth())
    history: dict[str, list[int]] = {}
    for asset_id, last_updated_us in price_truth(running):
        history.setdefault(asset_id, []).append(last_updated_us)
    assert all(times == sorted(times) for times in history.values()), "last_updated never goes back"


async def test_a_restart_tells_the_same_last_match_again(launch: Callable[..., Simulator]) -> None:
    first = launch()
    messages = await read(first.ws, count_of("match", 30))
    first.post("/control/pause")
    [*_, told] = [entry for entry in of_type(messages, "match") if entry["product_id"] == "BTC-USD"]
    while first.get("/control/status")[1]["products"]["BTC-USD"]["last_trade_id"] < told["trade_id"]:
        time.sleep(0.01)
    first_last = of_type(await read(first.ws, count_of("last_match", 2)), "last_match")
    first.kill()
    second = launch(rate=0.0001)  # too slow to trade before the reader is there
    second_last = of_type(await read(second.ws, count_of("last_match", 2)), "last_match")
    assert second_last == first_last


def test_sigterm_ends_with_0_and_a_synced_truth(launch: Callable[..., Simulator]) -> None:
    running = launch(rate=1000)
    while not (running.home / "truth/trades.ndjson").stat().st_size:
        time.sleep(0.02)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 0
    assert (running.home / "truth/trades.ndjson").read_bytes().endswith(b"}\n")


def test_a_second_simulator_on_the_same_truth_is_refused(launch: Callable[..., Simulator], tmp_path: Path) -> None:
    launch()
    second = subprocess.run(
        [sys.executable, "-m", "marketflow.simulator"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 75
    assert "another simulator writes" in second.stderr


def test_a_wrong_setting_stops_at_start_with_one_line(tmp_path: Path) -> None:
    wrong = subprocess.run(
        [sys.executable, "-m", "marketflow.simulator"],
        env=environment(tmp_path, rate=-1),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert wrong.returncode == 2
    [line] = wrong.stderr.splitlines()
    assert "MARKETFLOW_SIMULATOR_RATE" in line
    assert "-1" in line


async def test_a_paused_market_makes_nothing_and_resumes_at_the_next_id(launch: Callable[..., Simulator]) -> None:
    running = launch()
    await read(running.ws, count_of("match", 20))
    paused = running.post("/control/pause")[1]["products"]
    beats = of_type(await read(running.ws, count_of("heartbeat", 4)), "heartbeat")
    assert all(beat["last_trade_id"] == paused[beat["product_id"]]["last_trade_id"] for beat in beats)
    before = running.truth()
    assert {product: max(trades) for product, trades in before.items()} == {
        product: state["last_trade_id"] for product, state in paused.items()
    }
    resumed_us = time.time_ns() // 1000
    running.post("/control/resume")
    await read(running.ws, count_of("match", 20))
    assert_contiguous(running.truth())
    for product, trades in running.truth().items():
        assert trades[max(before[product]) + 1]["event_us"] > resumed_us


def test_the_truth_can_be_read_over_http(simulator: Simulator) -> None:
    for name in ("trades", "prices"):
        with urllib.request.urlopen(f"{simulator.rest}/truth/{name}", timeout=20) as answer:
            read_back = answer.read()
        assert read_back.endswith(b"}\n")
        assert (simulator.home / f"truth/{name}.ndjson").read_bytes().startswith(read_back)
