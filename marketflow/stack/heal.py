"""`marketflow heal` and Dag heal_gaps: what producers could not know or fill is found in silver and filled by REST.

A producer heals what it sees. This looks at what came of it: ids that silver lacks and no row of the ledger tells are
new holes, rows whose ids are in silver are closed, and what nobody has worked on for two minutes is tried here.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from marketflow.contracts.products import PRODUCTS
from marketflow.errors import ConfigurationError, MarketflowError
from marketflow.ingest.gaps import Gap
from marketflow.ingest.healer import FIRST_WAIT_S, TRIES, Healer
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.rest import RestClient
from marketflow.lake.trade_holes import Market, SilverTrades
from marketflow.settings import Settings
from marketflow.venues import id_ranges
from marketflow.venues.history import HISTORIES
from marketflow.venues.id_ranges import Range
from marketflow.warehouse import ledger
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

# a producer's own tries are over by then, and so is the way of a late trade to silver
SETTLED = timedelta(minutes=2)
# how long a healed trade may take to silver before its absence there is a finding
ON_THE_WAY = timedelta(hours=1)
FLUSH_S = 60.0
OUTBOX_S = 60.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for; nothing is everything. With ids, holes are tried whoever works on them."""

    venue: str | None = None
    product_id: str | None = None
    first_id: int | None = None
    last_id: int | None = None
    redo_unrecoverable: bool = False

    @property
    def ids(self) -> Range | None:
        """The ids asked for."""
        return None if self.first_id is None or self.last_id is None else (self.first_id, self.last_id)

    def check(self) -> None:
        """Refuse what means nothing, in a sentence."""
        if self.venue is not None and self.venue not in HISTORIES:
            raise ConfigurationError(f"venue {self.venue!r} has no history to heal from; known: {', '.join(HISTORIES)}")
        there = sorted(name for name, product in PRODUCTS.items() if self.venue is None or self.venue in product.names)
        if self.product_id is not None and self.product_id not in there:
            of = f"none of {self.venue}" if self.venue else "unknown"
            raise ConfigurationError(f"product {self.product_id!r} is {of}; known: {', '.join(there)}")
        if (self.first_id is None) != (self.last_id is None):
            raise ConfigurationError("first and last are asked for together")
        if self.ids is not None and (self.venue is None or self.product_id is None):
            raise ConfigurationError("ids mean nothing without venue and product")
        if self.ids is not None and not 0 <= self.ids[0] <= self.ids[1]:
            raise ConfigurationError(f"first {self.ids[0]} to last {self.ids[1]} are no ids")

    def means(self, market: Market) -> bool:
        """Whether a market is asked for."""
        return self.venue in (None, market[0]) and self.product_id in (None, market[1])

    def within(self, ranges: Iterable[Range]) -> list[Range]:
        """Those of the ids that are asked for."""
        return id_ranges.union(ranges) if self.ids is None else id_ranges.within(ranges, [self.ids])


@dataclass(frozen=True, slots=True)
class Task:
    """Ids of one market to be tried."""

    market: Market
    ids: Range
    detected_at: datetime
    before_us: int | None = None
    after_us: int | None = None

    @property
    def count(self) -> int:
        """How many trades."""
        return self.ids[1] - self.ids[0] + 1

    def __str__(self) -> str:
        """`coinbase_exchange BTC-USD 101 to 110 (10 trades)`."""
        return f"{' '.join(self.market)} {self.ids[0]} to {self.ids[1]} ({self.count:,} trades)"


@dataclass(frozen=True, slots=True)
class HealReport:
    """What a run did, in trades. `false_heals` are ids that the ledger calls healed and silver lacks."""

    found: int = 0
    closed: int = 0
    tried: int = 0
    healed: int = 0
    given_up: int = 0
    false_heals: int = 0

    @property
    def left_open(self) -> int:
        """Trades that were tried and are neither here nor given up: a venue asked for a pause."""
        return self.tried - self.healed - self.given_up

    @property
    def healthy(self) -> bool:
        """Whether nothing is left to wish for."""
        return self.left_open == 0 and self.given_up == 0 and self.false_heals == 0

    def as_dict(self) -> dict[str, int]:
        """For XCom and logs."""
        return asdict(self) | {"left_open": self.left_open}

    def __str__(self) -> str:
        """One line."""
        return ", ".join(f"{name.replace('_', ' ')} {number:,}" for name, number in self.as_dict().items())


def heal_holes(
    settings: Settings,
    wish: Wish | None = None,
    *,
    dry_run: bool = False,
    tries: int = TRIES,
    first_wait_s: float = FIRST_WAIT_S,
    say: Say = print,
) -> HealReport:
    """Find, close, fill, give up. `dry_run` says what would be done and writes nothing.

    Raises:
        ConfigurationError: the wish means nothing, or the dataset is not fed from a venue.
        BusyError: another run is at it.
        PublishError: Kafka lost an answer for good.
    """
    wish = wish or Wish()
    wish.check()
    if settings.dataset == "replay":
        raise ConfigurationError("MARKETFLOW_DATASET: replay is what its captures hold; nothing is healed there")
    if wish.ids is not None:
        asyncio.run(_refuse_what_is_not_yet(settings, wish))
    with table_lock(settings, "ops.trade_gap"):
        with SilverTrades(settings) as silver:
            report, tasks = _look(settings, silver, wish, dry_run, say)
        if dry_run or not tasks:
            return report
        healed, given_up = asyncio.run(_work(settings, tasks, tries, first_wait_s))
    tried = sum(task.count for task in tasks)
    return HealReport(report.found, report.closed, tried, healed, given_up, report.false_heals)


async def _refuse_what_is_not_yet(settings: Settings, wish: Wish) -> None:
    """An id above the venue's newest is no trade that is missing: as a row of the ledger it would never be filled."""
    venue, product_id, ids = wish.venue or "", wish.product_id or "", wish.ids or (0, 0)
    async with RestClient(settings, KafkaPublisher(settings), HISTORIES[venue]) as client:
        newest = await client.newest_id(product_id)
    if ids[1] > newest:
        raise ConfigurationError(f"last {ids[1]}: the newest trade of {product_id} at {venue} is {newest}")


def _look(
    settings: Settings, silver: SilverTrades, wish: Wish, dry_run: bool, say: Say
) -> tuple[HealReport, list[Task]]:
    """Bring ledger and silver together; what is to be tried."""
    now = datetime.now(UTC)
    with connect(settings) as connection:
        rows = ledger.not_healed(connection, unrecoverable=True)
        told = _by_market((*rows, *ledger.healed_since(connection, now - ON_THE_WAY)))
        here = silver.present(told)
        closed = sum(_close(connection, row, here, now, dry_run, say) for row in rows)
        connection.commit()  # producers wait for the rows that are being closed
        explained = {market: id_ranges.without(ids, here[market]) for market, ids in told.items()}
        found = _new(silver, explained, wish, now)
        for task in found:
            say(f"{task}: silver lacks them, and the ledger says nothing of it")
        opened = found if dry_run else [part for task in found for part in _open(connection, task)]
        due = _due(connection, silver, wish, now, here, say)
    tasks = [*opened, *due]
    for task in tasks:
        say(f"{task}: to be healed, missing since {task.detected_at:%Y-%m-%d %H:%M:%S} UTC")
    false_heals = sum(task.count for task in found) - sum(task.count for task in opened)
    if false_heals:
        say(f"the ledger calls {false_heals:,} trades healed that silver lacks: `marketflow quarantine show` may tell")
    return HealReport(found=sum(task.count for task in opened), closed=closed, false_heals=false_heals), tasks


def _close(
    connection: ledger.Connection,
    row: ledger.Known,
    here: dict[Market, list[Range]],
    now: datetime,
    dry: bool,
    say: Say,
) -> int:
    """Close what of a row is in silver; how many trades."""
    market = (row.venue, row.product_id)
    ids = id_ranges.within([(row.first_missing_id, row.last_missing_id)], here[market])
    for first, last in ids:
        say(f"{Task(market, (first, last), row.detected_at)}: in silver by now, no longer {row.status}")
        if not dry:
            ledger.close_hole(connection, venue=market[0], product_id=market[1], first_id=first, last_id=last, at=now)
    return id_ranges.count(ids)


def _new(silver: SilverTrades, explained: dict[Market, list[Range]], wish: Wish, now: datetime) -> list[Task]:
    """Ids that silver lacks and the ledger does not tell, settled and asked for; and ids asked for by number."""
    settled_us = (now - SETTLED).timestamp() * 1_000_000
    tasks = [
        Task((hole.venue, hole.product_id), ids, now, hole.before_us, hole.after_us)
        for hole in silver.holes(explained)
        if hole.seen_us <= settled_us and wish.means((hole.venue, hole.product_id))
        for ids in wish.within([(hole.first_id, hole.last_id)])
    ]
    if wish.ids is not None:
        market = (wish.venue or "", wish.product_id or "")
        known = [*silver.present({market: [wish.ids]})[market], *explained.get(market, []), *(t.ids for t in tasks)]
        tasks += [Task(market, ids, now) for ids in id_ranges.without([wish.ids], known)]
    return tasks


def _open(connection: ledger.Connection, task: Task) -> list[Task]:
    """Into the ledger; the parts that it did not know."""
    new = ledger.open_hole(
        connection,
        venue=task.market[0],
        product_id=task.market[1],
        first_missing_id=task.ids[0],
        last_missing_id=task.ids[1],
        cause="unknown",
        detected_at=task.detected_at,
        detected_by="silver",
    )
    return [replace(task, ids=ids) for ids in new]


def _due(
    connection: ledger.Connection,
    silver: SilverTrades,
    wish: Wish,
    now: datetime,
    here: dict[Market, list[Range]],
    say: Say,
) -> list[Task]:
    """Rows that nobody works on, or that are asked for by number; with their times where a venue is asked by time."""
    since = None if wish.ids is not None else now - SETTLED
    rows = ledger.not_healed(
        connection,
        venue=wish.venue,
        product_id=wish.product_id,
        unrecoverable=wish.redo_unrecoverable,
        untouched_since=since,
    )
    tasks = []
    for row in rows:
        market = (row.venue, row.product_id)
        if row.detected_at == now or row.venue not in HISTORIES:
            continue
        if row.product_id not in PRODUCTS or row.venue not in PRODUCTS[row.product_id].names:
            say(f"{Task(market, (row.first_missing_id, row.last_missing_id), row.detected_at)}: no such product there")
            continue
        # a dry run has closed nothing
        missing = id_ranges.without([(row.first_missing_id, row.last_missing_id)], here.get(market, []))
        for ids in wish.within(missing):
            times = (None, None) if HISTORIES[row.venue].by_id else silver.around(market, ids)
            tasks.append(Task(market, ids, row.detected_at, *times))
    return tasks


def _by_market(rows: Iterable[ledger.Known]) -> dict[Market, list[Range]]:
    found: defaultdict[Market, list[Range]] = defaultdict(list)
    for row in rows:
        found[row.venue, row.product_id].append((row.first_missing_id, row.last_missing_id))
    return dict(found)


async def _work(settings: Settings, tasks: list[Task], tries: int, first_wait_s: float) -> tuple[int, int]:
    """Heal venue by venue, all at once; trades healed and given up. Everything is in Kafka and the ledger after it."""
    outbox, publisher = Outbox(partial(connect, settings)), KafkaPublisher(settings)
    by_venue: defaultdict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_venue[task.market[0]].append(task)
    writing = asyncio.create_task(outbox.run())
    try:
        heal = partial(_venue, settings, publisher, outbox, tries=tries, first_wait_s=first_wait_s)
        results = await asyncio.gather(*(heal(venue, of_venue) for venue, of_venue in by_venue.items()))
        publisher.flush(FLUSH_S)
        if not await outbox.drained(OUTBOX_S):
            raise MarketflowError(
                f"{len(outbox)} writes to the gap ledger are not in PostgreSQL: the next run finds them"
            )
    finally:
        writing.cancel()
    return sum(healed for healed, _ in results), sum(given_up for _, given_up in results)


async def _venue(
    settings: Settings,
    publisher: KafkaPublisher,
    outbox: Outbox,
    venue: str,
    tasks: list[Task],
    *,
    tries: int,
    first_wait_s: float,
) -> tuple[int, int]:
    history = HISTORIES[venue]
    async with RestClient(settings, publisher, history) as client:
        # what is asked of it now is all it gets, however much that is
        healer = Healer(
            *(history, client, outbox), grace_s=0.0, tries=tries, first_wait_s=first_wait_s, capacity=sys.maxsize
        )
        for task in tasks:
            gap = Gap(venue, task.market[1], *task.ids, "unknown")
            healer.add(gap, task.before_us, task.after_us, detected_at=task.detected_at)
        running, done = asyncio.create_task(healer.run()), asyncio.create_task(healer.done())
        await asyncio.wait((running, done), return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        healer.stop()
        await running
    return healer.healed_trades, healer.unrecoverable_trades
