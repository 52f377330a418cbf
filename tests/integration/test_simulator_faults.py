"""Each fault does what it says on the wire, and neither the truth nor the REST history knows of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from simulator_process import (
    SUBSCRIBE,
    Message,
    Simulator,
    assert_contiguous,
    assert_same_trade,
    count_of,
    launcher,
    microseconds,
    of_type,
    price_truth,
    read,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

MARKETS = "/coingecko/api/v3/coins/markets?vs_currency=usd&per_page=5"
BITCOIN = f"{MARKETS}&ids=bitcoin"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with launcher(tmp_path_factory.mktemp("home")) as launch:
        yield launch(keyless_calls_per_minute=0)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    with launcher(tmp_path) as starting:
        yield starting


async def read_with_fault(simulator: Simulator, fault: Message) -> list[Message]:
    """What one reader hears from before the fault is ordered until forty more matches of its product have come."""
    ordered = False

    def done(messages: list[Message]) -> bool:
        nonlocal ordered
        matches = len([m for m in messages if m.get("type") == "match" and m.get("product_id") == "BTC-USD"])
        if matches >= 5 and not ordered:
            ordered = True
            status, _, _ = simulator.post("/control/faults", {"product": "BTC-USD", **fault})
            assert status == 200
        return matches >= 45

    return await read(simulator.ws, done)


async def until_closed(socket: ClientConnection) -> None:
    while True:
        await socket.recv()


def assert_truth_is_whole(simulator: Simulator, messages: list[Message]) -> None:
    """Ids are contiguous in the truth, and REST has every id that could have been on the wire."""
    truth = simulator.truth()
    assert_contiguous(truth)
    ids = [m["trade_id"] for m in of_type(messages, "match") if m["product_id"] == "BTC-USD"]
    _, page, _ = simulator.get(f"/coinbase_exchange/products/BTC-USD/trades?after={max(ids) + 1}&before={min(ids) - 1}")
    assert [item["trade_id"] for item in page] == list(range(max(ids), min(ids) - 1, -1))
    for item in page:
        assert_same_trade(item, truth["BTC-USD"][item["trade_id"]])


def bitcoin_ids(messages: list[Message]) -> list[int]:
    return [m["trade_id"] for m in of_type(messages, "match") if m["product_id"] == "BTC-USD"]


def missing(ids: list[int]) -> set[int]:
    return set(range(min(ids), max(ids) + 1)) - set(ids)


async def test_drop_loses_exactly_as_many_trades_as_ordered(simulator: Simulator) -> None:
    messages = await read_with_fault(simulator, {"fault": "drop", "count": 3})
    assert len(missing(bitcoin_ids(messages))) == 3
    assert_truth_is_whole(simulator, messages)


async def test_duplicate_sends_the_same_bytes_twice(simulator: Simulator) -> None:
    messages = await read_with_fault(simulator, {"fault": "duplicate", "count": 2})
    twice = [trade_id for trade_id, times in Counter(bitcoin_ids(messages)).items() if times == 2]
    assert len(twice) == 2
    for trade_id in twice:
        first, second = [m for m in of_type(messages, "match") if m["trade_id"] == trade_id]
        assert first == second
    assert missing(bitcoin_ids(messages)) == set()
    assert_truth_is_whole(simulator, messages)


async def test_reorder_swaps_two_trades_and_loses_none(simulator: Simulator) -> None:
    messages = await read_with_fault(simulator, {"fault": "reorder"})
    ids = bitcoin_ids(messages)
    swapped = [position for position in range(1, len(ids)) if ids[position] < ids[position - 1]]
    assert len(swapped) == 1
    assert missing(ids) == set()
    assert_truth_is_whole(simulator, messages)


def test_a_fault_that_another_one_kept_from_the_wire_is_not_counted_and_comes_with_the_next_answer(
    simulator: Simulator,
) -> None:
    before = Counter(simulator.get("/control/status")[1]["faults_done"])
    for fault in ("error_object", "http_429", "http_5xx"):
        simulator.post("/control/faults", {"fault": fault, "venue": "coingecko"})
    assert simulator.get(MARKETS)[0] == 429
    assert Counter(simulator.get("/control/status")[1]["faults_done"]) - before == {"coingecko:http_429": 1}
    assert simulator.get(MARKETS)[0] == 500
    assert simulator.get(MARKETS)[:2] == (200, {"status": 500, "error": "Internal Server Error"})


@pytest.mark.parametrize(
    ("fault", "is_bad"),
    [
        ("null_price", lambda m, _: m.get("type") == "match" and m["price"] is None),
        ("negative_size", lambda m, _: m.get("type") == "match" and Decimal(m["size"]) < 0),
        (
            "future_time",
            lambda m, _: m.get("type") == "match" and microseconds(m["time"]) > (time.time() + 3600) * 1_000_000,
        ),
        ("year_one", lambda m, _: m.get("time") == "0001-01-01T00:00:00.000000Z"),
        (
            "conflicting_duplicate",
            lambda m, truth: (
                m.get("type") == "match"
                and Decimal(m["price"]) != Decimal(truth[m["product_id"]][m["trade_id"]]["price"])
            ),
        ),
        ("oversize", lambda m, _: len(m.get("padding", "")) > 8 * 1024**2),
        ("unknown_type", lambda m, _: m.get("type") == "status_of_everything"),
        ("error_object", lambda m, _: m.get("type") == "error"),
        ("malformed", lambda m, _: m["type"] == "broken" and m["text"].endswith("}")),
        ("truncated", lambda m, _: m["type"] == "broken" and not m["text"].endswith("}")),
    ],
)
async def test_a_bad_message_comes_beside_the_good_one(
    simulator: Simulator, fault: str, is_bad: Callable[..., bool]
) -> None:
    messages = await read_with_fault(simulator, {"fault": fault, "count": 1})
    truth = simulator.truth()
    bad = [m for m in messages if is_bad(m, truth)]
    good = [m for m in messages if m not in bad]
    assert len(bad) == 1
    assert missing(bitcoin_ids(good)) == set()
    for match in of_type(good, "match"):
        assert_same_trade(match, truth[match["product_id"]][match["trade_id"]])
    assert_truth_is_whole(simulator, good)


@pytest.mark.parametrize("fault", ["malformed", "truncated"])
async def test_a_broken_message_may_replace_the_good_one(simulator: Simulator, fault: str) -> None:
    messages = await read_with_fault(simulator, {"fault": fault, "replace": True})
    assert len(of_type(messages, "broken")) == 1
    assert len(missing(bitcoin_ids(messages))) == 1
    assert_truth_is_whole(simulator, messages)


async def test_a_fault_acts_on_its_product_and_channel_alone(simulator: Simulator) -> None:
    messages = await read_with_fault(simulator, {"fault": "year_one", "channel": "ticker", "count": 4})
    bad = [m for m in messages if m.get("time", "").startswith("0001")]
    assert [(m["type"], m["product_id"]) for m in bad] == [("ticker", "BTC-USD")] * 4


async def test_disconnect_cuts_the_connection_and_refuses_for_a_while(simulator: Simulator) -> None:
    async with connect(simulator.ws, compression=None) as socket:
        await socket.send(json.dumps(SUBSCRIBE))
        await socket.recv()
        simulator.post("/control/faults", {"fault": "disconnect", "venue": "coinbase_exchange", "seconds": 2})
        with pytest.raises(ConnectionClosed):
            await until_closed(socket)
    assert socket.close_code == 1006
    with pytest.raises(InvalidStatus, match="503"):
        async with connect(simulator.ws, compression=None):
            pass
    while True:
        try:
            messages = await read(simulator.ws, count_of("match", 10))
            break
        except InvalidStatus:
            await asyncio.sleep(0.1)
    assert_contiguous(simulator.truth())
    assert len(of_type(messages, "last_match")) == 2


async def test_a_stall_delays_everything_and_loses_nothing_for_who_stays(launch: Callable[..., Simulator]) -> None:
    simulator = launch()
    arrived: list[tuple[float, Message]] = []
    async with asyncio.timeout(30), connect(simulator.ws, compression=None, max_queue=None) as socket:
        await socket.send(json.dumps(SUBSCRIBE))
        while len(arrived) < 300:
            arrived.append((time.time(), json.loads(await socket.recv())))
            if len(arrived) == 20:
                simulator.post("/control/faults", {"fault": "stall", "venue": "coinbase_exchange", "seconds": 1.5})
    matches = [(at, m) for at, m in arrived if m["type"] == "match" and m["product_id"] == "ETH-USD"]
    assert missing([m["trade_id"] for _, m in matches]) == set()
    assert max(at - microseconds(m["time"]) / 1e6 for at, m in matches) > 1.0
    assert_contiguous(simulator.truth())


async def test_random_faults_come_at_their_rate_and_leave_the_market_as_it_is(launch: Callable[..., Simulator]) -> None:
    simulator = launch(rate=1000, faults='{"drop": 0.05, "coingecko:http_5xx": 1.0}')
    messages = await read(simulator.ws, count_of("match", 3000))
    ids = bitcoin_ids(messages)
    assert 0.03 < len(missing(ids)) / len(ids) < 0.08
    assert_contiguous(simulator.truth())
    assert simulator.get(MARKETS)[0] == 500
    assert simulator.get("/coinbase_exchange/products")[0] == 200


def test_http_faults_answer_as_ordered_and_then_end(simulator: Simulator) -> None:
    simulator.post("/control/faults", {"fault": "http_429", "venue": "coingecko", "count": 2, "retry_after": 7})
    first, second, third = (simulator.get(MARKETS) for _ in range(3))
    assert [first[0], second[0], third[0]] == [429, 429, 200]
    assert first[2]["retry-after"] == "7"
    simulator.post("/control/faults", {"fault": "http_5xx", "venue": "coinbase_exchange"})
    path = "/coinbase_exchange/products/BTC-USD/trades?limit=1"
    assert [simulator.get(path)[0] for _ in range(2)] == [500, 200]


@pytest.mark.parametrize(
    ("fault", "is_bad"),
    [
        ("null_price", lambda coin: coin["current_price"] is None),
        ("negative_size", lambda coin: coin["current_price"] < 0),
        ("future_time", lambda coin: microseconds(coin["last_updated"]) > (time.time() + 3600) * 1_000_000),
        ("year_one", lambda coin: coin["last_updated"].startswith("0001")),
        ("oversize", lambda coin: len(coin.get("padding", "")) > 8 * 1024**2),
        ("unknown_type", lambda coin: "id" not in coin),
    ],
)
def test_a_bad_item_is_added_to_the_page(simulator: Simulator, fault: str, is_bad: Callable[..., bool]) -> None:
    simulator.post("/control/faults", {"fault": fault, "venue": "coingecko"})
    page = simulator.get(BITCOIN)[1]
    assert [is_bad(coin) for coin in page] == [False, True]
    truth = price_truth(simulator)
    assert truth["bitcoin", microseconds(page[0]["last_updated"])][0] == str(page[0]["current_price"])
    assert len(simulator.get(BITCOIN)[1]) == 1


@pytest.mark.parametrize(("fault", "is_same"), [("duplicate", True), ("conflicting_duplicate", False)])
def test_a_doubled_item_keeps_its_time(simulator: Simulator, fault: str, is_same: bool) -> None:
    simulator.post("/control/faults", {"fault": fault, "venue": "coingecko"})
    first, second = simulator.get(BITCOIN)[1]
    assert (first["id"], first["last_updated"]) == (second["id"], second["last_updated"])
    assert (first["current_price"] == second["current_price"]) is is_same


@pytest.mark.parametrize("fault", ["malformed", "truncated"])
def test_a_broken_page_is_no_json(simulator: Simulator, fault: str) -> None:
    simulator.post("/control/faults", {"fault": fault, "venue": "coingecko"})
    with pytest.raises(json.JSONDecodeError):
        simulator.get(MARKETS)
    assert len(simulator.get(MARKETS)[1]) == 5


def test_an_error_object_takes_the_pages_place(simulator: Simulator) -> None:
    simulator.post("/control/faults", {"fault": "error_object", "venue": "coingecko"})
    assert simulator.get(MARKETS)[:2] == (200, {"status": 500, "error": "Internal Server Error"})


def test_a_rest_connection_can_be_cut(simulator: Simulator) -> None:
    simulator.post("/control/faults", {"fault": "disconnect", "venue": "coingecko"})
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        simulator.get(MARKETS)


@pytest.mark.parametrize(
    "body",
    [
        {"fault": "earthquake"},
        {"fault": "drop", "venue": "mars"},
        {"fault": "drop", "product": "NOPE-USD"},
        {"fault": "drop", "count": -5},
        {"fault": "stall", "seconds": 0},
        {"fault": "drop", "colour": 1},
        {},
    ],
)
def test_an_unknown_fault_is_refused(simulator: Simulator, body: Message) -> None:
    assert simulator.post("/control/faults", body)[0] == 400


def test_ordered_faults_can_be_taken_back(simulator: Simulator) -> None:
    simulator.post("/control/faults", {"fault": "http_5xx", "venue": "coingecko", "seconds": 600})
    assert simulator.get(MARKETS)[0] == 500
    assert simulator.delete("/control/faults")[1]["faults_active"] == []
    assert simulator.get(MARKETS)[0] == 200
