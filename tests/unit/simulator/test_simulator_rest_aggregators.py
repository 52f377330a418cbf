"""Each price that an aggregator's page tells is in the truth before it is told, under the names of our parsers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from simulator_rest_world import SECOND_US, World, now_us, parsed, paused_world, slow_candles

BINANCE = "/binance/api/v3"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return paused_world(tmp_path_factory.mktemp("home"))


def by_key(items: tuple[Any, ...]) -> Iterator[tuple[tuple[str, str, int], tuple[Decimal, Decimal | None]]]:
    for price in items:
        yield (price.asset_id, price.vs_currency, price.last_updated_us), (price.price, price.market_cap)


async def test_coincap_pages_cover_all_assets_once_and_each_price_is_in_the_truth(world: World) -> None:
    seen: list[str] = []
    for offset in (0, 100, 200, 300):
        _, body, _ = await world.ask(f"/coincap/v3/assets?limit=100&offset={offset}")
        if not json.loads(body)["data"]:
            break
        items = parsed("coincap", "assets", body)
        facts = world.prices("coincap")
        assert {key: facts[key] for key, _ in by_key(items)} == dict(by_key(items))
        assert [price.market_cap_rank for price in items] == list(range(offset + 1, offset + len(items) + 1))
        seen += [price.asset_id for price in items]
    assert len(seen) == len(set(seen)) == len({asset for asset, _ in world.simulation.assets.published})
    quoted = world.simulation.assets.published["bitcoin", "usd"]
    chosen = await world.get("/coincap/v3/assets?ids=bitcoin")
    assert Decimal(chosen["data"][0]["priceUsd"]) == Decimal(quoted.price)


async def test_coincap_writes_each_figure_as_the_capture_does(world: World) -> None:
    page = await world.get("/coincap/v3/assets?search=bitcoin&limit=3")
    assert list(page) == ["data", "timestamp"]
    assert page["data"][0]["id"] == "bitcoin"
    assert all("bitcoin" in asset["id"] or "bitcoin" in asset["symbol"].lower() for asset in page["data"])
    for asset in page["data"]:
        for name in ("supply", "marketCapUsd", "volumeUsd24Hr", "priceUsd", "changePercent24Hr", "vwap24Hr"):
            assert len(asset[name].split(".")[1]) == 16
        assert isinstance(asset["rank"], str)


@pytest.mark.parametrize(("query", "message"), [("limit=2001", "limit exceeds 2000"), ("offset=x", "invalid offset")])
async def test_coincap_refuses(world: World, query: str, message: str) -> None:
    status, body, _ = await world.ask(f"/coincap/v3/assets?{query}")
    assert (status, json.loads(body)) == (400, {"error": message})


async def test_pages_of_one_millisecond_tell_the_same_though_the_market_moved_on(tmp_path: Path) -> None:
    start = now_us()
    made = World(tmp_path, start, lambda: (start + 60 * SECOND_US) * 1000)
    made.run(start + 10 * SECOND_US, start)
    paths = ("/coincap/v3/assets?limit=300", f"{BINANCE}/ticker/24hr")
    before = [(await made.ask(path))[1] for path in paths]
    made.run(start + 50 * SECOND_US, start + 10 * SECOND_US)
    assert [(await made.ask(path))[1] for path in paths] == before
    assert len(made.prices("binance")) == 2


async def test_a_page_after_a_restart_is_a_later_page_though_the_clock_went_back(tmp_path: Path) -> None:
    start = now_us()
    made = World(tmp_path, start, lambda: (start + 10 * SECOND_US) * 1000)
    made.run(start + 10 * SECOND_US, start)
    first = (await made.get("/coincap/v3/assets?ids=bitcoin"))["timestamp"]
    price = made.simulation.assets.published["solana", "usd"]
    made.simulation.truth.close()
    again = World(tmp_path, start + 11 * SECOND_US, lambda: (start - 3600 * SECOND_US) * 1000)
    again.run(start + 60 * SECOND_US, start + 11 * SECOND_US)
    assert (await again.get("/coincap/v3/assets?ids=bitcoin"))["timestamp"] == first + 1
    assert len(again.prices("coincap")) == 2
    # the market goes on from its own prices, not from what a page made of them later
    assert float(again.simulation.assets.published["solana", "usd"].price) == pytest.approx(
        float(price.price), rel=0.01
    )


async def test_cryptocompares_prices_are_in_the_truth_and_unknown_pairs_are_left_out(world: World) -> None:
    _, body, _ = await world.ask("/cryptocompare/data/pricemultifull?fsyms=btc,ETH,NOPE,USDT&tsyms=USD,EUR,XXX")
    items = parsed("cryptocompare", "pricemultifull", body)
    assert [(price.asset_id, price.vs_currency) for price in items] == [
        (symbol, currency) for symbol in ("BTC", "ETH", "USDT") for currency in ("usd", "eur")
    ]
    facts = world.prices("cryptocompare")
    assert {key: facts[key] for key, _ in by_key(items)} == dict(by_key(items))
    quoted = world.simulation.assets.published["bitcoin", "eur"]
    assert items[1].price == Decimal(quoted.price)
    assert items[1].last_updated_us // SECOND_US == quoted.last_updated_us // SECOND_US
    assert list(json.loads(body)["DISPLAY"]) == ["BTC", "ETH", "USDT"]


async def test_two_prices_of_cryptocompare_never_share_a_second(tmp_path: Path) -> None:
    start = now_us() - 10 * SECOND_US
    made = World(tmp_path, start)
    path = "/cryptocompare/data/pricemultifull?fsyms=BTC&tsyms=USD"
    made.run(start + SECOND_US, start)
    told = [parsed("cryptocompare", "pricemultifull", (await made.ask(path))[1])[0]]
    quoted = made.simulation.assets.published["bitcoin", "usd"]
    for step in (1000, 2000):
        moved = quoted._replace(price=str(70_000 + step), last_updated_us=quoted.last_updated_us + step)
        made.simulation.assets.publish([moved])
        told += [parsed("cryptocompare", "pricemultifull", (await made.ask(path))[1])[0] for _ in range(2)]
    assert [price.last_updated_us - told[0].last_updated_us for price in told] == [
        second * SECOND_US for second in (0, 1, 1, 2, 2)
    ]
    assert made.prices("cryptocompare") == dict(by_key(tuple(told)))


async def test_histominute_is_a_slow_fold_and_flat_where_nothing_was_traded(world: World) -> None:
    page = await world.get("/cryptocompare/data/v2/histominute?fsym=BTC&tsym=USD&limit=100")
    slow = slow_candles(world.trades("BTC-USD"), 60)
    rows = page["Data"]["Data"]
    assert [row["time"] for row in rows] == list(range(min(slow), page["Data"]["TimeTo"] + 1, 60))
    assert (page["Response"], page["Data"]["TimeFrom"]) == ("Success", rows[0]["time"])
    close = None
    for row in rows:
        candle = slow.get(
            row["time"], {**dict.fromkeys(("open", "high", "low", "close"), close), "volume": 0, "amount": 0}
        )
        assert {name: row[name] for name in ("open", "high", "low", "close")} == {
            name: candle[name] for name in ("open", "high", "low", "close")
        }
        assert (row["volumefrom"], row["volumeto"]) == (candle["volume"], candle["amount"])
        close = candle["close"]
    two = await world.get(f"/cryptocompare/data/v2/histominute?fsym=BTC&tsym=USD&limit=1&toTs={rows[1]['time'] + 5}")
    assert two["Data"]["Data"] == rows[:2]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pricemultifull?fsyms=NOPE&tsyms=USD", "coin pair (NOPE-USD)"),
        ("pricemultifull?fsyms=BTC", "tsyms is a required param"),
        ("v2/histominute?fsym=SOL&tsym=USD", "coin pair (SOL-USD)"),
        ("v2/histominute?fsym=BTC&tsym=EUR", "coin pair (BTC-EUR)"),
        ("v2/histominute?fsym=BTC&tsym=USD&limit=2001", "larger than max"),
        ("v2/histominute?fsym=BTC&tsym=USD&toTs=x", "not an integer"),
    ],
)
async def test_cryptocompare_tells_errors_with_status_200(world: World, path: str, words: str) -> None:
    answer = await world.get(f"/cryptocompare/data/{path}")
    assert (answer["Response"], answer["Data"], words in answer["Message"]) == ("Error", {}, True)
