"""A venue that lies, refuses or bans: the healer against a real HTTP server that does what each test tells it to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from marketflow.errors import BannedError, HistoryError, VenueError
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.rest import RestClient, quiet_s
from marketflow.settings import Settings
from marketflow.venues.history import HISTORIES
from marketflow.warehouse.connection import connect
from tests.integration.heal_stage import VENUE, Work, answers, healing
from tests.integration.producer_stage import Market, Process

Page = list[dict[str, Any]]
NEWEST = 5_000
PRODUCT = "SKL-USD"


class Venue:
    """Trades 1 to NEWEST of one product by Coinbase's rules; `spoil` and `status` are asked with the call's number."""

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.spoil: Callable[[int, Page], Any] = lambda _, page: page
        self.status: Callable[[int], tuple[int, dict[str, str]]] = lambda _: (200, {})
        self.asked: list[tuple[float, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        number = len(self.asked)
        self.asked.append((time.monotonic(), request.path_qs))
        status, headers = self.status(number)
        if status != 200:
            return web.json_response({"message": "no"}, status=status, headers=headers)
        below, limit = int(request.query.get("after", NEWEST + 1)), int(request.query["limit"])
        ids = [each for each in range(below - 1, 0, -1) if each not in self.gone][:limit]
        return web.json_response(self.spoil(number, [item(each) for each in ids]))


def item(trade_id: int, **changes: Any) -> dict[str, Any]:
    time_ = f"2026-07-07T12:{trade_id // 60 % 60:02}:{trade_id % 60:02}.000000Z"
    return {"time": time_, "trade_id": trade_id, "price": "10.5", "size": "2", "side": "buy", **changes}


@asynccontextmanager
async def venue(tmp_path: Path) -> AsyncIterator[tuple[Venue, Market]]:
    told = Venue()
    application = web.Application()
    application.router.add_get("/coinbase_exchange/products/{product}/trades", told.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        made = Market(Process(None, tmp_path), tmp_path, PRODUCT, {"simulator_rest_port": port})  # type: ignore[arg-type]
        yield told, made
    finally:
        await runner.cleanup()


def ledger_of(settings: Settings) -> list[tuple[int, int, str, int, str | None]]:
    with connect(settings) as connection:
        return connection.execute(
            "select first_missing_id, last_missing_id, status, attempts, detail from ops.trade_gap "
            "where product_id = %s order by 1",
            (PRODUCT,),
        ).fetchall()


@pytest.fixture(autouse=True)
def _empty_ledger(embedded: Settings) -> None:
    with connect(embedded) as connection:
        connection.execute("delete from ops.trade_gap where product_id = %s", (PRODUCT,))


async def healed(work: Work, first: int, last: int) -> None:
    work.lose(first, last)
    await work.settled()


async def test_ids_that_history_does_not_have_are_given_up_after_two_tries_and_the_rest_is_healed(
    embedded: Settings, tmp_path: Path
) -> None:
    async with venue(tmp_path) as (told, made), healing(embedded, made, grace_s=0.01) as work:
        told.gone = {4_905, 4_906}
        await healed(work, 4_901, 4_910)
        assert sorted(work.published) == [*range(4_901, 4_905), *range(4_907, 4_911)]
        assert (work.healer.healed_trades, work.healer.unrecoverable_trades) == (8, 2)
    rows = ledger_of(embedded)
    assert [row[:4] for row in rows] == [
        (4_901, 4_904, "healed", 1),
        (4_905, 4_906, "unrecoverable", 2),
        (4_907, 4_910, "healed", 1),
    ]
    assert rows[1][4] is not None
    assert rows[1][4].startswith("left out by two answers: coinbase_exchange SKL-USD: the page leaves out 4905 to 4906")


LIES: dict[str, Callable[[Page], Any]] = {
    "a hole in the page": lambda page: [*page[:3], *page[4:]],
    "ids that go back": lambda page: [*page[:3], page[4], page[3], *page[5:]],
    "ids beyond the cursor": lambda page: [item(page[0]["trade_id"] + 1), *page[:-1]],
    "another stretch": lambda page: [item(each) for each in range(200, 190, -1)],
    "no array": lambda page: {"message": "try later"},
    "nothing": lambda page: [],
    "an item without an id": lambda page: [*page[:3], {"price": "1"}, *page[4:]],
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_page_that_lies_once_is_kept_as_evidence_and_costs_no_trade(
    embedded: Settings, tmp_path: Path, lie: str
) -> None:
    async with venue(tmp_path) as (told, made), healing(embedded, made, grace_s=0.01) as work:
        told.spoil = lambda number, page: page if number else LIES[lie](page)
        await healed(work, 4_901, 4_910)
    assert [row[:3] for row in ledger_of(embedded)] == [(4_901, 4_910, "healed")]
    assert sorted(work.published) == list(range(4_901, 4_911)), "each told once"
    kept = answers(embedded, PRODUCT, work.connection_id)
    assert json.loads(kept[0].value) == LIES[lie]([item(each) for each in range(4_910, 4_900, -1)])
    # from the newest page, since the guessed cursor's page was not to be trusted; not where it lacked nothing
    again = [] if lie == "ids that go back" else ["limit=1000"]
    assert [path.rpartition("?")[2] for _, path in told.asked] == ["after=4911&limit=10", *again]


async def test_what_silver_would_reject_does_not_close_a_hole(embedded: Settings, tmp_path: Path) -> None:
    async with venue(tmp_path) as (told, made), healing(embedded, made, grace_s=0.01, tries=2) as work:
        told.spoil = lambda _, page: [each | {"price": "-1"} if each["trade_id"] == 4_905 else each for each in page]
        await healed(work, 4_901, 4_910)
    assert [row[:3] for row in ledger_of(embedded)] == [
        (4_901, 4_904, "healed"),
        (4_905, 4_905, "unrecoverable"),
        (4_906, 4_910, "healed"),
    ]


async def test_a_ban_ends_the_try_leaves_the_hole_open_and_nothing_more_is_asked(
    embedded: Settings, tmp_path: Path
) -> None:
    async with venue(tmp_path) as (told, made), healing(embedded, made, grace_s=0.01) as work:
        told.status = lambda _: (403, {})
        await healed(work, 4_901, 4_910)
        await healed(work, 4_801, 4_810)
        assert len(told.asked) == 1
    rows = ledger_of(embedded)
    assert [(row[2], row[3]) for row in rows] == [("open", 1), ("open", 1)]
    assert "asked to be left alone for" in str(rows[0][4])
    assert str(rows[1][4]).startswith("coinbase_exchange answered 403 to ")
    assert [each.headers["http_status"] for each in answers(embedded, PRODUCT, work.connection_id)] == ["403"]


async def test_calls_keep_the_venues_distance_and_errors_say_what_came(embedded: Settings, tmp_path: Path) -> None:
    async with venue(tmp_path) as (told, made):
        settings = embedded.model_copy(update=made.ports)
        publisher = KafkaPublisher(settings)
        async with RestClient(settings, publisher, HISTORIES[VENUE]) as client:
            request = "/products/SKL-USD/trades?limit=1"
            await asyncio.gather(*(client.page(request, PRODUCT) for _ in range(4)))
            times = [at for at, _ in told.asked]
            assert all(later - earlier > 0.18 for earlier, later in pairwise(times))
            assert await client.newest_id(PRODUCT) == NEWEST
            told.spoil = lambda _, page: {"message": "no"}
            with pytest.raises(HistoryError, match="limit=1"):
                await client.newest_id(PRODUCT)
            told.status = lambda _: (404, {})
            before = len(told.asked)
            with pytest.raises(VenueError) as refused:
                await client.page(request, PRODUCT)
            # what is refused is refused again
            assert (refused.value.http_status, len(told.asked) - before) == (404, 1)
            told.status = lambda _: (302, {"Location": "/elsewhere"})
            with pytest.raises(VenueError, match="answered 302"):
                await client.page(request, PRODUCT)
            told.status = lambda _: (418, {"Retry-After": "77"})
            with pytest.raises(BannedError) as banned:
                await client.page(request, PRODUCT)
            assert (banned.value.http_status, banned.value.retry_after_s) == (418, 77.0)
            # the questions for the newest id are not kept, every other answer is
            mine = answers(settings, PRODUCT, client._connection_id)
            assert [each.headers["http_status"] for each in mine] == ["200"] * 4 + ["404", "302", "418"]


def test_a_pause_is_as_long_as_the_answer_says() -> None:
    now = datetime(2026, 7, 7, tzinfo=UTC)
    asked = {(403, None): 600, (418, "9"): 9, (429, None): 60, (503, "5"): 5, (500, None): None, (200, "5"): None}
    assert {key: quiet_s(*key, now) for key in asked} == asked
