"""Holes of Binance and Coinbase Advanced Trade are filled from the simulator's REST of these venues."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from marketflow.settings import Settings
from tests.integration.heal_stage import healing, ledger_rows, traded
from tests.integration.producer_stage import Market, market, stored

BINANCE, ADVANCED = "binance", "coinbase_advanced"
PRODUCTS = {BINANCE: "SOL-USDT", ADVANCED: "DOT-USD"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module", params=[BINANCE, ADVANCED])
def at(request: pytest.FixtureRequest, embedded: Settings, tmp_path_factory: Any) -> Iterator[tuple[str, Market]]:
    """A venue, and its market with some history."""
    folder = tmp_path_factory.mktemp("market") / "market"
    with market(embedded, folder, PRODUCTS[request.param], "--rate", "400") as made:
        traded(made, 5_000)
        yield request.param, made


def items(settings: Settings, venue: str, made: Market, connection_id: str) -> dict[int, dict[str, Any]]:
    """Every trade of the good pages by id, in the words of the truth."""
    found = {}
    for record in stored(settings, "sim.crypto.trades.raw", f"{venue}|{made.product}"):
        if record.headers["connection_id"] != connection_id or record.headers["http_status"] != "200":
            continue
        assert record.headers["origin"] == "heal"
        page = json.loads(record.value)
        for each in page["trades"] if venue == ADVANCED else page:
            if venue == ADVANCED:
                side = {"BUY": "sell", "SELL": "buy"}[each["side"]]
                event_us = (datetime.fromisoformat(each["time"]) - EPOCH) // timedelta(microseconds=1)
                size = each["size"]
            else:
                side, event_us, size = "sell" if each["isBuyerMaker"] else "buy", each["time"] * 1000, each["qty"]
            told = {"price": Decimal(each["price"]), "size": Decimal(size), "taker_side": side, "event_us": event_us}
            assert found.setdefault(int(each["id" if venue == BINANCE else "trade_id"]), told) == told
    return found


async def test_holes_are_healed_and_equal_the_truth(embedded: Settings, at: tuple[str, Market]) -> None:
    venue, made = at
    truth = made.truth()
    start = min(truth) + 1_000
    holes = [(start, start + 2_499), (start + 2_600, start + 2_600)]
    async with healing(embedded, made, venue, grace_s=0.05) as work:
        for first, last in holes:
            work.lose(first, last, truth[first - 1]["event_us"], truth[last + 1]["event_us"])
        await work.settled()
    lost = {each for first, last in holes for each in range(first, last + 1)}
    assert sorted(work.published) == sorted(lost)
    assert ledger_rows(embedded, made.product, venue=venue) == [(*hole, "healed") for hole in holes]
    found = items(embedded, venue, made, work.connection_id)
    assert lost <= set(found)
    for trade_id in lost:
        fact = truth[trade_id]
        unit = 1000 if venue == BINANCE else 1
        assert found[trade_id] == {
            "price": Decimal(fact["price"]),
            "size": Decimal(fact["size"]),
            "taker_side": fact["taker_side"],
            "event_us": fact["event_us"] // unit * unit,
        }


async def test_a_hole_whose_time_nobody_knows_is_found(embedded: Settings, at: tuple[str, Market]) -> None:
    venue, made = at
    start = max(made.truth()) - 3_000
    async with healing(embedded, made, venue, grace_s=0.05) as work:
        work.lose(start, start + 4)
        await work.settled()
    assert sorted(work.published) == list(range(start, start + 5))


async def test_the_newest_id_is_the_markets(embedded: Settings, at: tuple[str, Market]) -> None:
    venue, made = at
    before = max(made.truth())
    async with healing(embedded, made, venue) as work:
        newest = await work.healer._client.newest_id(made.product)
    assert before - 1 <= newest <= max(made.truth())


async def test_a_page_with_a_hole_costs_no_trade(embedded: Settings, at: tuple[str, Market]) -> None:
    venue, made = at
    start = max(made.truth()) - 2_000
    made.control("faults", {"fault": "page_hole", "venue": venue, "count": 1})
    async with healing(embedded, made, venue, grace_s=0.05) as work:
        work.lose(start, start + 99, *(made.truth()[each]["event_us"] for each in (start - 1, start + 100)))
        await work.settled()
    assert sorted(work.published) == list(range(start, start + 100))
    assert made.control("status")["faults_done"].get(f"{venue}:page_hole") == 1
