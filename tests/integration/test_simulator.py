"""A real simulator process, judged by its files and by what an independent reader of its feed sees."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from simulator_process import (
    PRODUCTS,
    SUBSCRIBE,
    Message,
    Simulator,
    assert_contiguous,
    assert_same_trade,
    count_of,
    environment,
    launcher,
    microseconds,
    of_type,
    price_truth,
    read,
)
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    """One process for the tests that leave it whole."""
    with launcher(tmp_path_factory.mktemp("home")) as launch:
        running = launch(keyless_calls_per_minute=0)
        deadline = time.monotonic() + 30
        while running.truth().keys() < set(PRODUCTS):  # who subscribes now is told a last match
            assert time.monotonic() < deadline, "no trade of every product"
            time.sleep(0.05)
        yield running
        assert running.stop() == 0


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    """Simulators of the test's own."""
    with launcher(tmp_path) as starting:
        yield starting


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


async def test_a_halted_product_falls_silent_beside_the_others_and_resumes_at_its_next_id(
    launch: Callable[..., Simulator],
) -> None:
    running = launch(rate=50)
    await read(running.ws, count_of("match", 20))
    status, answer, _ = running.post("/control/pause", {"product": "ETH-USD"})
    assert (status, answer["halted"]) == (200, ["ETH-USD"])
    halted_at = answer["products"]["ETH-USD"]["last_trade_id"]
    messages = await read(running.ws, count_of("heartbeat", 6))
    # a subscriber's last_match is of another type
    assert {match["product_id"] for match in of_type(messages, "match")} == {"BTC-USD"}
    beats = {beat["product_id"]: beat["last_trade_id"] for beat in of_type(messages, "heartbeat")}
    assert beats["ETH-USD"] == halted_at
    assert running.post("/control/resume", {"product": "ETH-USD"})[1]["halted"] == []
    resumed = await read(running.ws, lambda found: any(m["product_id"] == "ETH-USD" for m in of_type(found, "match")))
    (first,) = [match for match in of_type(resumed, "match") if match["product_id"] == "ETH-USD"][:1]
    assert first["trade_id"] > halted_at
    assert_contiguous(running.truth())


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"product": "DOGE-USD"}, "product is one of BTC-USD, ETH-USD"),
        ({"produkt": "ETH-USD"}, "Object contains unknown field `produkt`"),
    ],
)
def test_a_product_that_is_not_traded_cannot_be_halted(simulator: Simulator, body: Any, sentence: str) -> None:
    status, answer, _ = simulator.post("/control/pause", body)
    assert (status, answer["error"]) == (400, sentence)
    assert simulator.get("/control/status")[1]["halted"] == []


def test_the_truth_can_be_read_over_http(simulator: Simulator) -> None:
    for name in ("trades", "prices"):
        with urllib.request.urlopen(f"{simulator.rest}/truth/{name}", timeout=20) as answer:
            read_back = answer.read()
        assert read_back.endswith(b"}\n")
        assert (simulator.home / f"truth/{name}.ndjson").read_bytes().startswith(read_back)


async def test_a_listener_from_the_start_hears_every_trade_over_a_stop_and_a_start(
    launch: Callable[..., Simulator],
) -> None:
    heard: dict[str, list[int]] = {product: [] for product in PRODUCTS}
    for round_number in range(2):
        running = launch(wait_for_listener_s=60)
        before = running.truth()
        time.sleep(0.5)
        assert running.truth() == before, "it does not trade before somebody listens"
        async with asyncio.timeout(20), connect(running.ws, compression=None, max_queue=None) as socket:
            await socket.send(json.dumps(SUBSCRIBE))
            async for text in socket:  # ends when the exchange closes
                message = json.loads(text)
                if message["type"] == "match":
                    heard[message["product_id"]].append(message["trade_id"])
                if sum(map(len, heard.values())) == 40 * (round_number + 1):
                    running.process.terminate()
        assert running.process.wait(20) == 0
    assert heard == {product: sorted(trades) for product, trades in running.truth().items()}


def test_the_ticks_before_somebody_listens_trade_nothing_however_fast_the_market(
    launch: Callable[..., Simulator],
) -> None:
    # at 100,000 trades a second and product, a start that took one millisecond of the market's time would show
    running = launch(wait_for_listener_s=60, rate=100_000, tape=False)
    assert running.truth() == {}
    assert running.get("/control/status")[0] == 200
