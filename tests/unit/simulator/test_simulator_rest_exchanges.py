"""What each exchange's REST tells is the truth: read by our own parsers, paged without a hole, folded the slow way."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from simulator_rest_world import SECOND_US, Row, World, now_us, parsed, paused_world, slow_candles

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.records import Trade
from marketflow.simulator import history

BINANCE = "/binance/api/v3"
ADVANCED = "/coinbase_advanced/api/v3/brokerage/market/products"
DAY_US = 86_400 * SECOND_US


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return paused_world(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def long_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Trades of twenty-five hours."""
    now = now_us()
    made = World(tmp_path_factory.mktemp("home"), now - 25 * DAY_US // 24, rate=0.05)
    made.trade(now - SECOND_US)
    made.open()
    return made


def assert_true(trades: tuple[Any, ...] | list[Any], truth: list[Row]) -> None:
    """Each parsed trade is the truth's, in the same order."""
    assert len(trades) == len(truth) > 0
    for trade, fact in zip(trades, truth, strict=True):
        assert isinstance(trade, Trade)
        assert (trade.product_id, trade.trade_id, trade.taker_side) == (
            fact["product_id"],
            fact["trade_id"],
            fact["taker_side"],
        )
        assert (trade.price, trade.size, trade.event_us) == (
            Decimal(fact["price"]),
            Decimal(fact["size"]),
            fact["event_us"],
        )


async def test_paging_binance_by_id_gives_every_trade_once_and_then_nothing(world: World) -> None:
    truth = world.trades("BTC-USDT")
    next_id, trades = 0, []
    while True:
        _, body, _ = await world.ask(f"{BINANCE}/historicalTrades?symbol=BTCUSDT&fromId={next_id}&limit=99")
        if body == b"[]":
            break
        trades += parsed("binance", "historicalTrades", body, "BTC-USDT")
        next_id = trades[-1].trade_id + 1
    assert_true(trades, truth)
    assert next_id == truth[-1]["trade_id"] + 1


@pytest.mark.parametrize("path", ["trades", "historicalTrades"])
async def test_binance_gives_the_newest_trades_without_an_id(world: World, path: str) -> None:
    _, body, _ = await world.ask(f"{BINANCE}/{path}?symbol=ETHUSDT&limit=20")
    assert_true(parsed("binance", "historicalTrades", body, "ETH-USDT"), world.trades("ETH-USDT")[-20:])
    assert len(await world.get(f"{BINANCE}/{path}?symbol=ETHUSDT")) == min(500, len(world.trades("ETH-USDT")))
    assert list((await world.get(f"{BINANCE}/{path}?symbol=ETHUSDT&limit=1"))[0]) == [
        *("id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"),
    ]


@pytest.mark.parametrize("product_id", ["BTC-USDT", "ETH-USDT"])
async def test_binances_24_hours_are_the_trades_of_24_hours_to_the_millisecond(
    long_world: World, product_id: str
) -> None:
    symbol = PRODUCTS[product_id].names["binance"]
    full = await long_world.get(f"{BINANCE}/ticker/24hr?symbol={symbol}")
    truth = long_world.trades(product_id)
    inside = [trade for trade in truth if trade["event_us"] > full["closeTime"] * 1000 - DAY_US]
    assert 0 < len(inside) < len(truth)
    assert full["openTime"] == full["closeTime"] - 86_400_000
    assert (full["firstId"], full["lastId"]) == (inside[0]["trade_id"], inside[-1]["trade_id"])
    assert full["count"] == full["lastId"] - full["firstId"] + 1 == len(inside)
    prices = [Decimal(trade["price"]) for trade in inside]
    sizes = [Decimal(trade["size"]) for trade in inside]
    amount = sum(price * size for price, size in zip(prices, sizes, strict=True))
    expected = {
        "openPrice": prices[0],
        "highPrice": max(prices),
        "lowPrice": min(prices),
        "lastPrice": prices[-1],
        "lastQty": sizes[-1],
        "volume": sum(sizes),
        "quoteVolume": amount.quantize(Decimal("1e-8")),
        "priceChange": prices[-1] - prices[0],
        "prevClosePrice": Decimal(truth[-len(inside) - 1]["price"]),
        "weightedAvgPrice": (amount / sum(sizes)).quantize(Decimal("1e-8")),
    }
    assert {name: Decimal(full[name]) for name in expected} == expected
    assert Decimal(full["bidPrice"]) < Decimal(full["askPrice"])


async def test_binances_ticker_is_in_the_truth_under_the_parsers_names(world: World) -> None:
    for query, count in (("", 2), ('?symbols=["ETHUSDT"]', 1), ("?symbol=BTCUSDT", 1), ("?type=MINI", 2)):
        _, body, _ = await world.ask(f"{BINANCE}/ticker/24hr{query}")
        items = parsed("binance", "ticker_24hr", body)
        assert len(items) == count
        facts = world.prices("binance")
        for price in items:
            assert facts[price.asset_id, price.vs_currency, price.last_updated_us] == (price.price, None)


async def test_binances_mini_has_the_prices_and_ids_alone(world: World) -> None:
    assert list(await world.get(f"{BINANCE}/ticker/24hr?symbol=BTCUSDT&type=MINI")) == [
        *("symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume"),
        *("openTime", "closeTime", "firstId", "lastId", "count"),
    ]


@pytest.mark.parametrize(("interval", "seconds"), [("1m", 60), ("5m", 300), ("15m", 900), ("1h", 3600), ("1d", 86_400)])
async def test_klines_are_a_slow_fold_and_flat_where_nothing_was_traded(
    world: World, interval: str, seconds: int
) -> None:
    rows = await world.get(f"{BINANCE}/klines?symbol=BTCUSDT&interval={interval}")
    slow = slow_candles(world.trades("BTC-USDT"), seconds)
    assert [row[0] for row in rows] == list(range(min(slow) * 1000, rows[-1][0] + 1, seconds * 1000))
    assert rows[-1][0] // 1000 in {int(time.time()) // seconds * seconds - back for back in (0, seconds)}
    close = None
    for row in rows:
        candle = slow.pop(row[0] // 1000, None)
        if candle is None:
            assert [Decimal(cell) for cell in row[1:6]] == [close, close, close, close, 0]
            assert row[8] == 0
            continue
        names = ("open", "high", "low", "close", "volume")
        assert [Decimal(cell) for cell in row[1:6]] == [candle[name] for name in names]
        assert row[6] == row[0] + seconds * 1000 - 1
        assert row[8] == candle["count"]
        for place, name in ((7, "amount"), (9, "taker_volume"), (10, "taker_amount")):
            assert Decimal(row[place]) == candle[name].quantize(Decimal("1e-8"))
        close = candle["close"]
    assert slow == {}


async def test_klines_begin_at_the_start_that_is_asked_for(long_world: World) -> None:
    path = f"{BINANCE}/klines?symbol=ETHUSDT&interval=1m"
    every = [row[0] for row in await long_world.get(f"{path}&startTime=0&limit=1000")]
    assert len(every) == 1000
    some = await long_world.get(f"{path}&startTime={every[10]}&endTime={every[14] + 59_999}")
    assert [row[0] for row in some] == every[10:15]
    newest = await long_world.get(f"{path}&limit=3")
    assert [row[0] for row in newest] == [newest[-1][0] - 120_000, newest[-1][0] - 60_000, newest[-1][0]]
    assert newest[-1][0] > every[-1]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("historicalTrades?symbol=BTCUSD", -1121),
        ("historicalTrades?symbol=BTC-USD", -1121),
        ("historicalTrades", -1102),
        ("historicalTrades?symbol=BTCUSDT&fromId=-5", -1100),
        ("historicalTrades?symbol=BTCUSDT&limit=0", -1130),
        ("klines?symbol=BTCUSDT&interval=7m", -1120),
        ("ticker/24hr?symbol=BTCUSDT&symbols=[]", -1128),
        ("ticker/24hr?symbols=BTC", -1100),
        ('ticker/24hr?symbols=["BTCUSDT","NOPE"]', -1121),
        ("ticker/24hr?type=HUGE", -1139),
    ],
)
async def test_binance_refuses_with_its_own_numbers(world: World, path: str, code: int) -> None:
    status, body, headers = await world.ask(f"{BINANCE}/{path}")
    assert (status, json.loads(body)["code"]) == (400, code)
    assert int(headers["x-mbx-used-weight-1m"]) > 0


async def test_binances_weights_are_counted_and_too_many_are_refused(tmp_path: Path) -> None:
    now = now_us()
    made = World(tmp_path, now - 5 * SECOND_US)
    made.run(now, now - 5 * SECOND_US)
    used = 0
    for path, weight in (
        ("historicalTrades?symbol=BTCUSDT", 25),
        ("klines?symbol=BTCUSDT&interval=1m", 2),
        ("ticker/24hr?symbol=BTCUSDT", 2),
        ("ticker/24hr", 80),
    ):
        _, _, headers = await made.ask(f"{BINANCE}/{path}")
        later = int(headers["x-mbx-used-weight-1m"])
        assert later - used == weight or later == weight, "the minute may turn between two calls"
        used = later
    while used <= 6000:
        status, body, headers = await made.ask(f"{BINANCE}/ticker/24hr")
        used = int(headers["x-mbx-used-weight-1m"])
        assert (status == 200) is (used <= 6000)
    assert (status, json.loads(body)["code"]) == (429, -1003)
    assert 1 <= int(headers["retry-after"]) <= 61


async def test_advanced_trade_gives_whole_seconds_with_both_ends(world: World) -> None:
    truth = world.trades("BTC-USD")
    start_s, end_s = (truth[place]["event_us"] // SECOND_US for place in (40, -40))
    _, body, _ = await world.ask(f"{ADVANCED}/BTC-USD/ticker?limit=1000&start={start_s}&end={end_s}")
    expected = [trade for trade in truth if start_s <= trade["event_us"] // SECOND_US <= end_s]
    assert len(expected) >= len(truth) - 80
    assert_true(parsed("coinbase_advanced", "trades", body), expected[::-1])
    page = json.loads(body)
    assert list(page) == ["trades", "best_bid", "best_ask"]
    assert list(page["trades"][0]) == [
        "trade_id",
        "product_id",
        "price",
        "size",
        "time",
        "side",
        "bid",
        "ask",
        "exchange",
    ]
    assert Decimal(page["best_bid"]) < Decimal(page["best_ask"])


async def test_advanced_trade_cuts_at_the_limit_from_the_newest(world: World) -> None:
    truth = world.trades("ETH-USD")[::-1]
    _, body, _ = await world.ask(f"{ADVANCED}/ETH-USD/ticker?limit=30")
    assert_true(parsed("coinbase_advanced", "trades", body), truth[:30])
    start_s = truth[-1]["event_us"] // SECOND_US
    _, body, _ = await world.ask(f"{ADVANCED}/ETH-USD/ticker?limit=70&start={start_s}")
    assert_true(parsed("coinbase_advanced", "trades", body), truth[:70])


async def test_advanced_trade_windows_cover_a_day_exactly_once(long_world: World) -> None:
    truth = long_world.trades("BTC-USD")
    start_s, last_s = truth[0]["event_us"] // SECOND_US, truth[-1]["event_us"] // SECOND_US
    trades: list[Any] = []
    while start_s <= last_s:
        _, body, _ = await long_world.ask(
            f"{ADVANCED}/BTC-USD/ticker?limit=1000&start={start_s}&end={start_s + 4 * 3600 - 1}"
        )
        trades = trades + list(parsed("coinbase_advanced", "trades", body))[::-1]
        start_s += 4 * 3600
    assert_true(trades, truth)


@pytest.mark.parametrize(
    ("path", "status"),
    [("BTC-USDT/ticker", 404), ("BTC-USD/ticker?limit=1001", 400), ("BTC-USD/ticker?limit=5&start=now", 400)],
)
async def test_advanced_trade_refuses(world: World, path: str, status: int) -> None:
    assert (await world.ask(f"{ADVANCED}/{path}"))[0] == status


async def test_each_exchange_shows_its_own_books(world: World) -> None:
    assert [entry["id"] for entry in await world.get("/coinbase_exchange/products")] == ["BTC-USD", "ETH-USD"]
    for path in ("trades", "candles"):
        assert (await world.ask(f"/coinbase_exchange/products/BTC-USDT/{path}"))[0] == 404
    assert [entry["symbol"] for entry in await world.get(f"{BINANCE}/ticker/24hr")] == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize("seconds", [60, 300, 3600])
async def test_coinbase_candles_are_a_slow_fold_and_missing_where_nothing_was_traded(
    long_world: World, seconds: int
) -> None:
    slow = slow_candles(long_world.trades("BTC-USD"), seconds)
    newest = max(slow)
    start_s, end_s = newest - 200 * seconds, newest
    rows = await long_world.get(
        f"/coinbase_exchange/products/BTC-USD/candles?granularity={seconds}&start={start_s}&end={end_s}"
    )
    expected = sorted((start for start in slow if start_s <= start <= end_s), reverse=True)
    assert [row[0] for row in rows] == expected
    if seconds == 60:
        assert len(expected) < 201, "some minutes have no trade at this rate"
    names = ("low", "high", "open", "close", "volume")
    assert [row[1:] for row in rows] == [[slow[start][name] for name in names] for start in expected]


async def test_coinbase_candles_are_at_most_300(long_world: World) -> None:
    path = "/coinbase_exchange/products/ETH-USD/candles?granularity=300"
    assert 290 < len(await long_world.get(path)) <= 300
    status, body, _ = await long_world.ask(f"{path}&start=2026-01-01T00:00:00Z&end=2026-01-02T01:05:01Z")
    assert (status, "exceeds 300" in json.loads(body)["message"]) == (400, True)
    assert (await long_world.ask(path.replace("300", "120")))[0] == 400
    iso = await long_world.get(f"{path}&start=2026-01-01T00:00:00Z&end=2026-01-01T01:00:00")
    assert iso == []


async def test_advanced_trade_tells_the_same_candles_in_texts_and_at_most_350(long_world: World) -> None:
    slow = slow_candles(long_world.trades("BTC-USD"), 300)
    newest = max(slow)
    path = f"{ADVANCED}/BTC-USD/candles?granularity=FIVE_MINUTE"
    told = (await long_world.get(f"{path}&start={newest - 3_000}&end={newest + 299}"))["candles"]
    expected = sorted((start for start in slow if newest - 3_000 <= start <= newest), reverse=True)
    assert [int(one["start"]) for one in told] == expected
    for one in told:
        assert {name: Decimal(one[name]) for name in ("low", "high", "open", "close", "volume")} == {
            name: slow[int(one["start"])][name] for name in ("low", "high", "open", "close", "volume")
        }
    assert (await long_world.ask(f"{path}&start={newest - 300 * 349}&end={newest}"))[0] == 200
    for wrong in (f"{path}&start={newest - 300 * 350}&end={newest}", path, f"{ADVANCED}/BTC-USD/candles?start=1&end=2"):
        assert (await long_world.ask(wrong))[0] == 400
    assert (await long_world.ask(f"{ADVANCED}/NO-USD/candles?start=1&end=2"))[0] == 404


async def test_a_minute_that_the_index_begins_in_the_middle_of_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = now_us() - 600 * SECOND_US
    made = World(tmp_path, start)
    made.trade(start + 590 * SECOND_US)
    made.simulation.truth.close()
    monkeypatch.setattr(history, "FIRST_SCAN_BYTES", 500_000)
    monkeypatch.setattr(history, "TRADES_WANTED", 300)
    again = World(tmp_path, start + 595 * SECOND_US)
    indexed = again.simulation.history.products["BTC-USD"].first_trade_id
    trades = again.trades("BTC-USD")
    assert trades[60]["trade_id"] < indexed < trades[-300]["trade_id"]
    slow = slow_candles(trades, 60)
    cut = next(trade["event_us"] for trade in trades if trade["trade_id"] == indexed) // SECOND_US // 60 * 60
    rows = await again.get("/coinbase_exchange/products/BTC-USD/candles")
    assert [(row[0], row[5]) for row in rows] == [
        (minute, slow[minute]["volume"]) for minute in sorted(slow, reverse=True) if minute > cut
    ]
