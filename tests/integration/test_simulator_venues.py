"""Advanced Trade's and Binance's feeds of a real simulator process, read by independent clients beside its truth."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from simulator_process import Message, Simulator, launcher, microseconds, of_type, read, whole_lines
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

PRODUCTS = "BTC-USD,ETH-USD,BTC-USDT"
EXCHANGE, ADVANCED, BINANCE = "coinbase_exchange", "coinbase_advanced", "binance"
STREAMS = "btcusdt@trade/btcusdt@bookTicker"


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    with launcher(tmp_path_factory.mktemp("home")) as launch:
        yield launch(products=PRODUCTS)


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Simulator]]:
    with launcher(tmp_path) as starting:
        yield lambda **knobs: starting(**{"products": PRODUCTS, **knobs})


def address(simulator: Simulator, path: str) -> str:
    return simulator.ws.replace(f"/{EXCHANGE}", path)


async def advanced(
    simulator: Simulator, until: Callable[[list[Message]], bool], channels: tuple[str, ...] = ("market_trades",)
) -> list[Message]:
    """All messages of one Advanced Trade connection, with the time of their arrival."""
    messages: list[Message] = []
    async with asyncio.timeout(30), connect(address(simulator, f"/{ADVANCED}"), compression=None) as feed:
        for channel in channels:
            request = {"type": "subscribe", "channel": channel, "product_ids": ["BTC-USD", "ETH-USD"]}
            await feed.send(json.dumps(request))
        while not until(messages):
            messages.append({**json.loads(await feed.recv()), "arrived": time.time()})
    return messages


async def binance(simulator: Simulator, until: Callable[[list[Message]], bool], path: str) -> list[Message]:
    messages: list[Message] = []
    async with asyncio.timeout(30), connect(address(simulator, path), compression=None) as feed:
        while not until(messages):
            messages.append(json.loads(await feed.recv()))
    return messages


def trades_of(messages: list[Message], product: str = "BTC-USD", kind: str = "update") -> list[Message]:
    """Trades of Advanced Trade's messages, in the order of the market."""
    return [
        trade
        for message in messages
        if message["channel"] == "market_trades"
        for event in message["events"]
        if event["type"] == kind
        for trade in reversed(event["trades"])
        if trade["product_id"] == product
    ]


def ids(trades: list[Message], name: str = "trade_id") -> list[int]:
    return [int(trade[name]) for trade in trades]


def missing(numbers: list[int]) -> set[int]:
    return set(range(min(numbers), max(numbers) + 1)) - set(numbers)


def assert_contiguous(numbers: list[int]) -> None:
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_advanced_trade_tells_the_exchanges_trades_without_a_gap_from_before_the_connection(
    simulator: Simulator,
) -> None:
    await read(simulator.ws, lambda messages: len(of_type(messages, "match")) > 300)
    connected = time.time()
    channels = ("market_trades", "ticker", "heartbeats")
    messages = await advanced(simulator, lambda found: len(trades_of(found)) > 100, channels)
    assert [message["sequence_num"] for message in messages] == list(range(len(messages)))
    truth = simulator.truth()
    for product in ("BTC-USD", "ETH-USD"):
        snapshot, updates = trades_of(messages, product, "snapshot"), trades_of(messages, product)
        assert len(snapshot) == 50
        assert_contiguous(ids([*snapshot, *updates]))
        assert microseconds(snapshot[0]["time"]) / 1e6 < connected
        for trade in [*snapshot, *updates]:
            fact = truth[product][int(trade["trade_id"])]
            assert fact["venue"] == EXCHANGE, "one book, one truth"
            assert Decimal(trade["price"]) == Decimal(fact["price"])
            assert Decimal(trade["size"]) == Decimal(fact["size"])
            assert {trade["side"].lower(), fact["taker_side"]} == {"buy", "sell"}
            assert microseconds(trade["time"]) == fact["event_us"]
    tickers = [m for m in messages if m["channel"] == "ticker" and m["events"][0]["type"] == "update"]
    assert len(tickers) > 20
    for ticker in tickers:
        [book] = ticker["events"][0]["tickers"]
        assert Decimal(book["best_bid"]) < Decimal(book["best_ask"])


async def test_advanced_trades_heartbeats_count_the_seconds(simulator: Simulator) -> None:
    def beats(found: list[Message]) -> list[Message]:
        return [m["events"][0] for m in found if m["channel"] == "heartbeats"]

    messages = await advanced(simulator, lambda found: len(beats(found)) == 3, ("heartbeats",))
    assert_contiguous([beat["heartbeat_counter"] for beat in beats(messages)])
    seconds = [int(beat["current_time"][17:19]) for beat in beats(messages)]
    assert [(later - earlier) % 60 for earlier, later in pairwise(seconds)] == [1, 1]


async def test_binance_tells_its_trades_without_a_gap_by_each_of_its_paths(simulator: Simulator) -> None:
    def enough(found: list[Message]) -> bool:
        return len(found) >= 60

    async def subscribed() -> list[Message]:
        messages: list[Message] = []
        async with asyncio.timeout(30), connect(address(simulator, "/binance/ws"), compression=None) as feed:
            await asyncio.sleep(0.3)  # nothing may come before the request is answered
            await feed.send(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@trade", "no@trade"], "id": 7}))
            while not enough(messages):
                messages.append(json.loads(await feed.recv()))
        return messages

    combined, raw, fine, asked = await asyncio.gather(
        binance(simulator, enough, f"/binance/stream?streams={STREAMS}"),
        binance(simulator, enough, "/binance/ws/btcusdt@trade"),
        binance(simulator, enough, "/binance/ws/btcusdt@trade?timeUnit=MICROSECOND"),
        subscribed(),
    )
    assert asked.pop(0) == {"result": None, "id": 7}
    assert {message["stream"] for message in combined} == set(STREAMS.split("/"))
    unwrapped = [message["data"] for message in combined if message["stream"] == "btcusdt@trade"]
    truth = simulator.truth()["BTC-USDT"]
    for trades, unit_us in ((unwrapped, 1000), (raw, 1000), (fine, 1), (asked, 1000)):
        assert_contiguous(ids(trades, "t"))
        for trade in trades:
            fact = truth[trade["t"]]
            assert (fact["venue"], trade["s"]) == (BINANCE, "BTCUSDT")
            assert (Decimal(trade["p"]), Decimal(trade["q"])) == (Decimal(fact["price"]), Decimal(fact["size"]))
            assert trade["T"] * unit_us == fact["event_us"]
            assert trade["m"] is (fact["taker_side"] == "sell")


async def test_a_path_that_no_venue_has_is_404_and_each_venue_has_its_own_patience(
    launch: Callable[..., Simulator],
) -> None:
    simulator = launch(subscribe_within_s=0.3)
    with pytest.raises(InvalidStatus, match="404"):
        async with connect(address(simulator, "/binance/nowhere")):
            pass
    async with connect(address(simulator, "/binance/ws"), compression=None) as patient:
        async with connect(address(simulator, f"/{ADVANCED}"), compression=None) as feed:
            with pytest.raises(ConnectionClosed):
                await feed.recv()
            assert feed.close_code == 1008
        await patient.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 1}))
        assert json.loads(await patient.recv()) == {"result": [], "id": 1}


async def test_a_drop_shows_as_a_jump_of_the_sequence_and_at_no_other_venue(simulator: Simulator) -> None:
    ordered = False

    def done(found: list[Message]) -> bool:
        nonlocal ordered
        if len(found) == 10 and not ordered:
            ordered = True
            status, answer, _ = simulator.post("/control/faults", {"fault": "drop", "venue": ADVANCED, "count": 2})
            assert (status, answer["accepted"]["channel"]) == (200, None)
        return len(found) >= 60

    beside = asyncio.create_task(read(simulator.ws, lambda found: len(of_type(found, "match")) > 400))
    messages = await advanced(simulator, done)
    numbers = [message["sequence_num"] for message in messages]
    assert len(missing(numbers)) == 2
    lost = {product: missing(ids(trades_of(messages, product))) for product in ("BTC-USD", "ETH-USD")}
    assert sum(map(len, lost.values())) >= 2
    for product, trades in lost.items():
        assert_contiguous(ids([m for m in of_type(await beside, "match") if m["product_id"] == product]))
        _, page, _ = simulator.get(f"/{EXCHANGE}/products/{product}/trades?limit=1000")
        assert trades <= {item["trade_id"] for item in page}, "REST can heal a drop"


async def test_a_vanished_trade_is_on_no_feed_and_on_no_page_though_the_simulator_is_killed(
    launch: Callable[..., Simulator],
) -> None:
    simulator = launch()
    ordered = False

    def done(found: list[Message]) -> bool:
        nonlocal ordered
        if len(found) == 10 and not ordered:
            ordered = True
            simulator.post("/control/faults", {"fault": "vanish", "venue": ADVANCED, "product": "BTC-USD"})
        return len(found) >= 40

    messages = await advanced(simulator, done)
    vanished = missing(ids(trades_of(messages)))
    assert vanished
    expected = [{"venue": ADVANCED, "product_id": "BTC-USD", "trade_id": each} for each in sorted(vanished)]
    with urllib.request.urlopen(f"{simulator.rest}/truth/vanished", timeout=20) as answer:
        assert [json.loads(line) for line in answer] == expected
    for again in range(2):
        assert vanished <= simulator.truth()["BTC-USD"].keys(), "the truth keeps it"
        around = f"after={max(vanished) + 4}&before={min(vanished) - 4}"
        _, page, _ = simulator.get(f"/{EXCHANGE}/products/BTC-USD/trades?{around}")
        told = {item["trade_id"] for item in page}
        assert told == set(range(min(vanished) - 3, max(vanished) + 4)) - vanished
        if not again:
            simulator.kill()
            simulator = launch(wait_for_listener_s=60)
            assert [json.loads(line) for line in whole_lines(simulator.home / "truth/vanished.ndjson")] == expected
    first = await advanced(simulator, lambda found: any(m["channel"] == "market_trades" for m in found))
    assert vanished.isdisjoint(ids(trades_of(first, kind="snapshot")))


async def test_a_late_message_comes_after_its_seconds_under_its_old_number(simulator: Simulator) -> None:
    ordered = False

    def has_gone_back(found: list[Message]) -> bool:
        nonlocal ordered
        if len(found) == 10 and not ordered:
            ordered = True
            simulator.post("/control/faults", {"fault": "late", "venue": ADVANCED, "seconds": 1})
        return len(found) > 1 and found[-1]["sequence_num"] < found[-2]["sequence_num"]

    messages = await advanced(simulator, has_gone_back)
    last = messages[-1]
    assert sorted(m["sequence_num"] for m in messages) == list(range(len(messages)))
    newest = microseconds(last["events"][0]["trades"][0]["time"]) / 1e6
    assert 1.0 <= last["arrived"] - newest < 2.5


def handshaken(simulator: Simulator, path: str) -> socket.socket:
    """A socket of our own, past the answer to its upgrade: a library would hide half a frame."""
    parts = urlsplit(simulator.ws)
    assert parts.hostname
    raw = socket.create_connection((parts.hostname, parts.port or 80), timeout=20)
    raw.sendall(
        f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += raw.recv(1)
    assert b" 101 " in head
    return raw


def to_the_end(raw: socket.socket) -> tuple[list[Message], bytes]:
    """Whole messages until the other side ends, and what is left over."""
    received = b""
    while part := raw.recv(65_536):
        received += part
    messages = []
    while len(received) >= 4:
        length, header = (received[1], 2) if received[1] < 126 else (int.from_bytes(received[2:4], "big"), 4)
        if len(received) < header + length:
            break
        messages.append(json.loads(received[header : header + length]))
        received = received[header + length :]
    return messages, received


def test_half_a_frame_ends_the_connections_of_its_venue_alone(simulator: Simulator) -> None:
    with handshaken(simulator, "/binance/ws/btcusdt@trade") as cut, handshaken(simulator, f"/{EXCHANGE}") as other:
        time.sleep(0.3)
        clients = simulator.get("/control/status")[1]["feeds"]
        assert (clients[BINANCE]["clients"], clients[EXCHANGE]["clients"]) == (1, 1)
        assert simulator.post("/control/faults", {"fault": "half_frame", "venue": BINANCE})[0] == 200
        messages, rest = to_the_end(cut)
        assert_contiguous(ids(messages, "t"))
        lost = messages[-1]["t"] + 1
        length = rest[1] if rest[1] < 126 else int.from_bytes(rest[2:4], "big")
        assert abs(len(rest) - length / 2) <= 4, "half of it"
        assert f'"t":{lost},'.encode() in rest, "of the next good message"
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.recv(1)
        status = simulator.get("/control/status")[1]
        assert (status["feeds"][BINANCE]["clients"], status["feeds"][EXCHANGE]["clients"]) == (0, 1)
        assert status["faults_done"]["binance:half_frame"] == 1


async def arrivals(feed: ClientConnection, seconds: float) -> list[float]:
    found: list[float] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                await feed.recv()
                found.append(time.monotonic())
    except TimeoutError:
        return found


async def test_a_stall_silences_its_venue_alone_and_loses_nothing(simulator: Simulator) -> None:
    trades: list[Message] = []
    path = "/binance/ws/btcusdt@trade"
    async with connect(address(simulator, path), compression=None, max_queue=None) as feed:
        await feed.recv()
        async with connect(address(simulator, f"/{ADVANCED}"), compression=None, max_queue=None) as other:
            request = {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD"]}
            await other.send(json.dumps(request))
            simulator.post("/control/faults", {"fault": "stall", "venue": BINANCE, "seconds": 1.5})
            await arrivals(feed, 0.2)
            silent, loud = await asyncio.gather(arrivals(feed, 0.8), arrivals(other, 0.8))
            assert silent == []
            assert len(loud) > 10
        async with asyncio.timeout(20):
            while len(trades) < 300:
                trades.append(json.loads(await feed.recv()))
    assert_contiguous(ids(trades, "t"))
    assert trades[-1]["T"] - trades[0]["T"] > 1000, "what was held came too"


async def test_a_disconnect_refuses_its_venue_alone(simulator: Simulator) -> None:
    async with connect(address(simulator, "/binance/ws/btcusdt@trade"), compression=None) as feed:
        simulator.post("/control/faults", {"fault": "disconnect", "venue": BINANCE, "seconds": 1})
        with pytest.raises(ConnectionClosed):
            await arrivals(feed, 10)
    with pytest.raises(InvalidStatus, match="503"):
        async with connect(address(simulator, "/binance/ws")):
            pass
    assert trades_of(await advanced(simulator, lambda found: len(found) > 5))
    await asyncio.sleep(1)
    assert await binance(simulator, bool, "/binance/ws/btcusdt@trade")


def test_what_no_venue_can_do_is_refused_at_once(simulator: Simulator) -> None:
    for body, sentence in (
        ({"fault": "drop", "venue": "coingecko"}, "drop is a fault of a feed, and coingecko has none"),
        ({"fault": "drop", "venue": BINANCE, "product": "BTC-USD"}, "BTC-USD is not traded on binance"),
        ({"fault": "drop", "venue": BINANCE, "channel": "matches"}, "channel is one of trade, bookTicker"),
    ):
        status, answer, _ = simulator.post("/control/faults", body)
        assert (status, answer["error"]) == (400, sentence)


async def test_the_market_opens_once_each_product_is_heard_at_some_venue(launch: Callable[..., Simulator]) -> None:
    simulator = launch(wait_for_listener_s=60)
    heard: list[int] = []
    async with connect(address(simulator, f"/{ADVANCED}"), compression=None) as feed:
        request = {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD", "ETH-USD"]}
        await feed.send(json.dumps(request))
        await asyncio.sleep(0.5)
        assert simulator.truth() == {}, "nobody hears BTC-USDT yet"
        trades = await binance(simulator, lambda found: len(found) == 30, "/binance/ws/btcusdt@trade")
        async with asyncio.timeout(20):
            while len(heard) < 30:
                heard += ids(trades_of([json.loads(await feed.recv())]))
    truth = simulator.truth()
    assert ids(trades, "t") == sorted(truth["BTC-USDT"])[:30]
    assert heard == sorted(truth["BTC-USD"])[: len(heard)]
