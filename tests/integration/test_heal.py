"""Holes are filled from REST history: every id once, equal to the truth, and what cannot be filled is said to be so."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marketflow.settings import Settings
from marketflow.warehouse import ledger
from marketflow.warehouse.connection import connect
from tests.integration.heal_stage import (
    VENUE,
    answers,
    assert_as_in_truth,
    healing,
    ledger_rows,
    traded,
    trades_of,
)
from tests.integration.producer_stage import Market, environment, ids, market, producer, stored, until

# no other test's: whoever shares the broker with them (test_backfill has BTC-USD) would add to what they find
DROPPED, CHOSEN = "BAND-BTC", "ETH-USD"


def test_a_thousand_dropped_trades_are_healed_by_the_feed_that_lost_them(embedded: Settings, tmp_path: Path) -> None:
    with (
        market(embedded, tmp_path / "market", DROPPED, "--rate", "400") as made,
        producer(embedded, made, VENUE, "producer") as feed,
    ):
        until(lambda: feed.events("connected"), "a connection")
        traded(made, len(made.truth()) + 400)
        made.control("faults", {"fault": "drop", "count": 1000})
        (lost,) = until(lambda: feed.events("gap"), "the hole")
        first, last = lost["first_missing_id"], lost["last_missing_id"]
        assert last - first + 1 == 1000
        (told,) = until(lambda: feed.events("healed"), "the heal")
        assert (told["trades"], told["tries"]) == (1000, 1)
        until(lambda: ledger_rows(embedded, DROPPED) == [(first, last, "healed")], "a healed ledger")
        assert feed.stop() == 0, feed.output
        pages = answers(embedded, made.product)
        healed = trades_of(pages)
        assert sorted(item["trade_id"] for item in healed) == list(range(first, last + 1))
        assert_as_in_truth(healed, made)
    # the feed's trades and the healed ones are all that was made, each once
    heard = ids(stored(embedded, "sim.crypto.trades.raw", f"{VENUE}|{DROPPED}"))
    here = [*heard, *(item["trade_id"] for item in healed)]
    assert sorted(here) == list(range(min(here), max(here) + 1))
    with connect(embedded) as connection:
        (row,) = ledger.listed(connection, open_only=False, product_id=DROPPED)
    assert (row["attempts"], row["missing"], row["detail"]) == (1, 1000, None)
    assert row["latency_s"] > 0
    assert {
        name: pages[0].headers[name] for name in ("schema_version", "venue", "channel", "origin", "http_status")
    } == {
        "schema_version": "1",
        "venue": VENUE,
        "channel": "trades",
        "origin": "heal",
        "http_status": "200",
    }
    assert pages[0].headers["request"] == f"/products/{DROPPED}/trades?after={last + 1}&limit=1000"
    assert pages[0].headers["product_id"] == DROPPED


@pytest.fixture(scope="module")
def made(embedded: Settings, tmp_path_factory: pytest.TempPathFactory) -> Market:  # type: ignore[misc]
    """A market that goes on; the tests choose their holes in its history."""
    with market(embedded, tmp_path_factory.mktemp("market") / "market", CHOSEN, "--rate", "400") as running:
        traded(running, 4_000)
        yield running


async def test_a_hole_of_several_pages_and_its_small_neighbours_arrive_once_each(
    embedded: Settings, made: Market
) -> None:
    start = min(made.truth())
    async with healing(embedded, made, grace_s=0.05) as work:
        work.lose(start + 10, start + 2_509)
        for first in (start + 2_600, start + 2_700, start + 2_800):
            work.lose(first, first)
        await work.settled()
    found = answers(embedded, made.product, work.connection_id)
    # three pages for the long one; the three small ones lie on one
    assert len(found) == 4
    assert_as_in_truth(trades_of(found), made)
    assert sorted(work.published) == [*range(start + 10, start + 2_510), start + 2_600, start + 2_700, start + 2_800]
    assert {status for _, _, status in ledger_rows(embedded, made.product, start + 10)} == {"healed"}


async def test_a_late_trade_fills_its_hole_by_itself_and_nothing_is_asked(embedded: Settings, made: Market) -> None:
    start = min(made.truth()) + 3_000
    async with healing(embedded, made, grace_s=0.5) as work:
        work.lose(start, start + 1)
        work.healer.filled(made.product, start)
        work.healer.filled(made.product, start + 1)
        await work.settled()
        assert len(work.healer) == 0
    assert answers(embedded, made.product, work.connection_id) == []


async def test_a_venue_that_refuses_is_given_up_and_every_answer_is_kept(embedded: Settings, made: Market) -> None:
    start = min(made.truth()) + 3_100
    made.control("faults", {"fault": "http_5xx", "count": 6})
    async with healing(embedded, made, grace_s=0.01, tries=2, first_wait_s=0.1) as work:
        work.lose(start, start + 4)
        await work.settled()
        assert work.healer.unrecoverable_trades == 5
    found = answers(embedded, made.product, work.connection_id)
    # two tries of three sends
    assert [record.headers["http_status"] for record in found] == ["500"] * 6
    with connect(embedded) as connection:
        row = connection.execute(
            "select status, attempts, detail, healed_at from ops.trade_gap "
            "where product_id = %s and first_missing_id = %s",
            (made.product, start),
        ).fetchone()
    assert row is not None
    assert (row[0], row[1], row[3]) == ("unrecoverable", 2, None)
    assert row[2].startswith(f"2 tries: coinbase_exchange answered 500 to /products/{CHOSEN}/trades?after=")


async def test_an_answer_that_asks_for_a_pause_is_obeyed(embedded: Settings, made: Market) -> None:
    start = min(made.truth()) + 3_200
    made.control("faults", {"fault": "http_429", "count": 1, "retry_after": 2})
    async with healing(embedded, made, grace_s=0.01) as work:
        began = time.monotonic()
        work.lose(start, start + 4)
        await work.settled()
        assert time.monotonic() - began >= 2
    statuses = [record.headers["http_status"] for record in answers(embedded, made.product, work.connection_id)]
    assert statuses == ["429", "200"]
    assert sorted(work.published) == list(range(start, start + 5))


async def test_a_long_pause_leaves_the_hole_open_with_its_reason(embedded: Settings, made: Market) -> None:
    start = min(made.truth()) + 3_300
    made.control("faults", {"fault": "http_429", "count": 1, "retry_after": 600})
    async with healing(embedded, made, grace_s=0.01) as work:
        work.lose(start, start + 4)
        await work.settled()
    assert ledger_rows(embedded, made.product, start)[0] == (start, start + 4, "open")
    assert len(answers(embedded, made.product, work.connection_id)) == 1


async def test_stopping_leaves_open_what_is_open(embedded: Settings, made: Market) -> None:
    start = min(made.truth()) + 3_400
    async with healing(embedded, made, grace_s=60) as work:
        work.lose(start, start + 4)
        assert await work.outbox.drained(10)
    assert ledger_rows(embedded, made.product, start)[0] == (start, start + 4, "open")


KILLED = """
import asyncio, sys
from pathlib import Path
from marketflow import settings
from tests.integration.heal_stage import healing
from tests.integration.producer_stage import Market
async def main():
    product, first, last, ws, rest = sys.argv[1], *map(int, sys.argv[2:])
    made = Market(None, Path("."), product, {"simulator_ws_port": ws, "simulator_rest_port": rest})
    async with healing(settings.load(), made, grace_s=0.01) as work:
        work.lose(first, last)
        await work.settled()
asyncio.run(main())
"""


async def test_a_heal_that_is_killed_between_pages_is_taken_up_without_harm(embedded: Settings, made: Market) -> None:
    start = await asyncio.to_thread(traded, made, 9_000) - 4_500
    hole = (start, start + 3_999)
    environment_ = environment(embedded, **made.ports)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, made.product, *map(str, hole), *map(str, made.ports.values())],
        env={**environment_, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        await asyncio.to_thread(
            until, lambda: any(s == "healed" for _, _, s in ledger_rows(embedded, made.product, start)), "a page"
        )
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(20)
    left = [(first, last) for first, last, status in ledger_rows(embedded, made.product, start) if status == "open"]
    assert left, "killed between pages, so something is open"
    async with healing(embedded, made, grace_s=0.01) as work:
        for first, last in left:
            work.lose(first, last)
        await work.settled()
    assert ledger_rows(embedded, made.product, start) == [(*hole, "healed")]
    everything = trades_of(answers(embedded, made.product))
    assert set(range(hole[0], hole[1] + 1)) <= {item["trade_id"] for item in everything}
    assert_as_in_truth(trades_of(answers(embedded, made.product, work.connection_id)), made)
