"""Brings trades or candles of an interval from a venue's REST history, through Kafka like anything else.

Page after page goes to its topic with origin `backfill`; once Kafka has it the cursor in ops.backfill moves. So after a
death at any moment at most the last page is asked for again, and silver keeps each trade and candle once. Nothing else
is written: rows of silver, bars and what is published follow by the ordinary way. docs/decisions/0010-backfill.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import psycopg

from marketflow.contracts.topics import CANDLES, TRADES
from marketflow.errors import BannedError, HistoryError, MarketflowError, VenueError
from marketflow.ingest.backfill_wish import Wish
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.rest import RestClient
from marketflow.settings import Settings
from marketflow.venues.history import HISTORIES, History
from marketflow.venues.history_candles import CANDLE_HISTORIES, CandleHistory, CandleWalk
from marketflow.venues.history_times import TIME_WALKS
from marketflow.venues.time_walk import TimeWalk
from marketflow.venues.validation import EPOCH
from marketflow.warehouse import backfills
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

# answers in a row that cannot be used, after which it has failed; each was asked for three times by then
TRIES = 5
# the venue has understood, and will say the same again
REFUSED = (400, 404, 422)
FIRST_WAIT_S = 1.0
# a pause that a venue asks for is waited out up to this
LONGEST_PAUSE_S = 300.0
PROGRESS_S = 2.0
MANY_CALLS = 1_000

Connection = psycopg.Connection[tuple[Any, ...]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """How a backfill stands. `calls` is the plan's estimate where one was made."""

    source: str
    product_id: str
    what: str
    start: datetime
    end: datetime
    status: str
    pages: int
    items: int
    reached: datetime | None
    detail: str | None
    calls: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON and XCom: times as text."""
        return {name: at.isoformat() if isinstance(at, datetime) else at for name, at in asdict(self).items()}

    def __str__(self) -> str:
        """One line."""
        told = f"{self.status}: {_many(self.pages, 'page')}, {self.items:,} {self.what.partition(':')[0]} on them"
        return f"{told}; {self.detail}" if self.detail else told


def backfill(
    settings: Settings,
    wish: Wish,
    *,
    again: bool = False,
    begun: datetime | None = None,
    dry_run: bool = False,
    say: Say = print,
) -> Report:
    """Bring what is asked for, from where an earlier try stood; `again` starts over, `dry_run` says the plan alone.

    `begun`: when whoever tries several times began to. What has moved since then goes on, also with `again`.

    Raises:
        ConfigurationError: the wish cannot be met.
        BusyError: another process is at this very interval.
        VenueError, HistoryError: the venue does not answer, or not with what can be true; the same wish goes on later.
        PublishError: Kafka lost a page for good.
        MarketflowError: PostgreSQL is away.
    """
    wish.check(settings, datetime.now(UTC))
    try:
        if dry_run:
            return asyncio.run(_plan(settings, wish, say))
        with table_lock(settings, wish.key.lock_name), connect(settings, autocommit=True) as connection:
            state = backfills.read(connection, wish.key)
            again = again and not (begun and state.moved_at and begun <= state.moved_at)
            state = backfills.State() if again else state
            if state.status == "done":
                say(f"{wish}: was done already; --again starts over")
                return _report(wish, state)
            backfills.begin(connection, wish.key, again=again)
            return asyncio.run(_run(settings, wish, connection, state, say))
    except psycopg.OperationalError as error:
        why = (str(error).splitlines() or ["no reason given"])[0]
        raise MarketflowError(
            f"PostgreSQL is away ({why}); what is in Kafka stays there, and the same goes on"
        ) from error


def _report(wish: Wish, state: backfills.State, calls: int | None = None) -> Report:
    told = (state.status or "not begun", state.pages, state.items, state.reached, state.detail)
    return Report(*wish.key.values, *told, calls)


def _history(wish: Wish) -> History | CandleHistory:
    return HISTORIES[wish.venue] if wish.interval is None else CANDLE_HISTORIES[wish.venue]


def _walk(wish: Wish, state: backfills.State) -> TimeWalk:
    span = wish.span(datetime.now(UTC))
    if wish.interval is None:
        walk = TIME_WALKS[wish.venue](span, state.cursor)
    else:
        walk = CandleWalk(CANDLE_HISTORIES[wish.venue], wish.interval, span, state.cursor)
    # a process that was killed has told nobody
    walk.notes.extend(state.notes)
    if state.reached is not None:
        walk.reached_us = (state.reached - EPOCH) // timedelta(microseconds=1)
    return walk


async def _plan(settings: Settings, wish: Wish, say: Say) -> Report:
    with connect(settings, "marketflow_reader") as connection:
        state = backfills.read(connection, wish.key)
    if state.status == "done":
        say(f"{wish}: was done already; --again starts over")
        return _report(wish, state)
    history, walk = _history(wish), _walk(wish, state)
    async with RestClient(settings, KafkaPublisher(settings), history, origin="backfill") as client:
        work = Work(wish, walk, client, history, state, say)
        await work.find()
    return _report(wish, state, walk.estimate)


async def _run(settings: Settings, wish: Wish, connection: Connection, state: backfills.State, say: Say) -> Report:
    history, walk = _history(wish), _walk(wish, state)
    async with RestClient(settings, KafkaPublisher(settings), history, origin="backfill") as client:
        work = Work(wish, walk, client, history, state, say, connection)
        try:
            await work.find()
            await work.bring()
        except MarketflowError as error:
            backfills.end(connection, wish.key, "failed", str(error))
            raise
    backfills.end(connection, wish.key, "done", "; ".join(walk.notes) or None)
    return _report(wish, backfills.read(connection, wish.key), walk.estimate)


class Work:
    """One walk through a venue's history: `find` its beginning, then `bring` the pages."""

    def __init__(
        self,
        wish: Wish,
        walk: TimeWalk,
        client: RestClient,
        history: History | CandleHistory,
        before: backfills.State,
        say: Say,
        connection: Connection | None = None,
    ) -> None:
        self._wish, self._walk, self._client, self._history = wish, walk, client, history
        self._before, self._say, self._connection = before, say, connection
        self._pages = before.pages
        self._began_s = self._told_s = time.monotonic()
        self._part_before = walk.done_part

    async def find(self) -> None:
        """Look until it is known where the pages begin, and say the plan."""
        if self._before.cursor is not None:
            self._say(f"{self._wish}: goes on from {self._shown_time(self._before.reached)}, {_count(self._before)}")
        while self._walk.looking:
            await self._insist(self._look)
        if self._walk.estimate is not None or self._before.cursor is None:
            self._say(f"{self._wish}: {self._plan()}")

    async def bring(self) -> None:
        """Page to the end."""
        self._began_s = self._told_s = time.monotonic()
        while self._walk.call is not None:
            await self._insist(self._page)
            if time.monotonic() - self._told_s >= PROGRESS_S or self._walk.call is None:
                self._told_s = time.monotonic()
                self._say(self._progress())

    async def _insist(self, ask: Callable[[], Any]) -> None:
        """Ask until the answer can be used, a few times."""
        for number in range(TRIES):
            try:
                await ask()
                return
            except BannedError:
                raise
            except (VenueError, HistoryError) as error:
                pause_s, status = None, None
                if isinstance(error, VenueError):
                    pause_s, status = error.retry_after_s, error.http_status
                if number == TRIES - 1 or (pause_s or 0.0) > LONGEST_PAUSE_S or status in REFUSED:
                    raise
                wait_s = max(pause_s or 0.0, FIRST_WAIT_S * 2**number)
                self._say(f"{error}; asked again in {wait_s:.0f} s")
                await asyncio.sleep(wait_s)

    async def _look(self) -> None:
        call = self._walk.call
        assert call is not None
        self._walk.read(await self._client.look(call.request, weight=call.weight))

    async def _page(self) -> None:
        call, wish = self._walk.call, self._wish
        assert call is not None
        answer = await self._client.page(
            call.request,
            wish.product_id,
            weight=call.weight,
            topic=TRADES if wish.interval is None else CANDLES,
            interval=wish.interval,
        )
        self._pages += 1
        self._walk.read(answer.value)
        await asyncio.to_thread(self._keep)

    def _keep(self) -> None:
        """Kafka has the page: the cursor moves."""
        walk = self._walk
        reached = None if walk.reached_us is None else EPOCH + timedelta(microseconds=walk.reached_us)
        items = self._before.items + walk.items
        move = partial(backfills.move, cast(Connection, self._connection), self._wish.key)
        move(cursor=walk.cursor, reached=reached, pages=self._pages, items=items, notes=walk.notes)

    def _plan(self) -> str:
        calls, call = self._walk.estimate, self._walk.call
        if call is None:
            return "nothing to ask for"
        spacing_s = self._history.spacing_s(call.weight)
        if calls is None:
            return f"calls at least {spacing_s:.2f} s apart; how many is not known before the first pages"
        plan = f"about {_many(calls, 'call')} at least {spacing_s:.2f} s apart: {_duration(calls * spacing_s)} or more"
        return plan if calls <= MANY_CALLS else f"{plan}. That is many: whenever it is stopped, the same goes on"

    def _progress(self) -> str:
        walk, elapsed_s = self._walk, max(1e-3, time.monotonic() - self._began_s)
        part = 1.0 if walk.call is None else walk.done_part
        gained = part - self._part_before
        left = f", about {_duration(elapsed_s * (1 - part) / gained)} left" if gained > 0 and walk.call else ""
        reached = None if walk.reached_us is None else EPOCH + timedelta(microseconds=walk.reached_us)
        return (
            f"{_many(self._pages, 'page')}, {_many(self._before.items + walk.items, 'item')}, at "
            f"{self._shown_time(reached)}, {part:.0%}, {walk.items / elapsed_s:,.0f} items/s{left}"
        )

    @staticmethod
    def _shown_time(at: datetime | None) -> str:
        return "the border" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _count(state: backfills.State) -> str:
    return f"{_many(state.pages, 'page')} and {_many(state.items, 'item')} are in Kafka"


def _many(number: int, what: str) -> str:
    """`1 page` or `1,200 pages`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
