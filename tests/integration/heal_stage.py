"""A healer at work in this process, against a real simulator, Kafka and ledger; and what it brought, read anew."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from marketflow.ingest.gaps import Gap
from marketflow.ingest.healer import Healer
from marketflow.ingest.holes import open_write
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.rest import RestClient
from marketflow.settings import Settings
from marketflow.venues.history import HISTORIES
from marketflow.warehouse.connection import connect
from tests.integration.producer_stage import Market, Stored, stored, until

VENUE = "coinbase_exchange"
Row = tuple[int, int, str]


@dataclass
class Work:
    """A healer that runs, and what it told."""

    healer: Healer
    outbox: Outbox
    product: str
    connection_id: str
    published: list[int] = field(default_factory=list)
    venue: str = VENUE

    def lose(self, first: int, last: int, *times: int) -> None:
        """A hole is seen: into the ledger, then to the healer, as a feed does it."""
        gap = Gap(self.venue, self.product, first, last, "drop")
        self.outbox.add(open_write(gap, datetime.now(UTC), None))
        assert self.healer.add(gap, *times)

    async def settled(self) -> None:
        """Everything was tried to its end and is in the ledger."""
        async with asyncio.timeout(120):
            await self.healer.done()
            assert await self.outbox.drained(20)


@asynccontextmanager
async def healing(settings: Settings, made: Market, venue: str = VENUE, **options: Any) -> AsyncIterator[Work]:
    """A healer of the market's product until the block ends."""
    told = settings.model_copy(update={**made.ports, "products": (made.product,)})
    outbox, publisher = Outbox(partial(connect, told)), KafkaPublisher(told)
    async with RestClient(told, publisher, HISTORIES[venue]) as client:
        published: list[int] = []
        healer = Healer(
            *(HISTORIES[venue], client, outbox, lambda product, ids: published.extend(ids)),
            **{"first_wait_s": 0.2, **options},
        )
        tasks = [asyncio.create_task(healer.run()), asyncio.create_task(outbox.run())]
        try:
            yield Work(healer, outbox, made.product, client._connection_id, published, venue)
        finally:
            healer.stop()
            await tasks[0]
            tasks[1].cancel()
    await asyncio.to_thread(publisher.flush, 20)


def ledger_rows(settings: Settings, product: str, since: int = 0, venue: str = VENUE) -> list[Row]:
    """First and last id and status of the product's rows."""
    with connect(settings) as connection:
        return connection.execute(
            "select first_missing_id, last_missing_id, status from ops.trade_gap "
            "where venue = %s and product_id = %s and first_missing_id >= %s order by 1",
            (venue, product, since),
        ).fetchall()


def answers(settings: Settings, product: str, connection_id: str | None = None) -> list[Stored]:
    """REST answers that were published, of one client or all."""
    records = stored(settings, "sim.crypto.trades.raw", f"{VENUE}|{product}")
    return [
        record
        for record in records
        if record.headers["channel"] == "trades"
        and (connection_id is None or record.headers["connection_id"] == connection_id)
    ]


def trades_of(records: list[Stored]) -> list[dict[str, Any]]:
    """Items of the good pages, in order."""
    return [item for record in records if record.headers["http_status"] == "200" for item in json.loads(record.value)]


def assert_as_in_truth(items: list[dict[str, Any]], made: Market) -> None:
    """Price, size, taker's side and time of each are the truth's."""
    truth = made.truth()
    assert items
    for item in items:
        fact = truth[item["trade_id"]]
        assert Decimal(item["price"]) == Decimal(fact["price"])
        assert Decimal(item["size"]) == Decimal(fact["size"])
        assert {item["side"], fact["taker_side"]} == {"buy", "sell"}, "REST tells the maker's side"
        event_us = (datetime.fromisoformat(item["time"]) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            microseconds=1
        )
        assert event_us == fact["event_us"]


def traded(made: Market, count: int) -> int:
    """Wait until the market has made that many trades; the last one's id."""
    until(lambda: len(made.truth()) >= count, f"{count} trades")
    return max(made.truth())
