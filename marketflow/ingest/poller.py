"""The CoinGecko poller: pages of /coins/markets at a steady interval, every answer to Kafka whatever its status."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import uuid4

import aiohttp
from yarl import URL

from marketflow.contracts.topics import SCHEMA_VERSION, message_key
from marketflow.ingest.disk import DiskGuard
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.publisher import KafkaPublisher, now_us
from marketflow.ingest.quotas import Budget, calls_per_poll, effective_interval_s, pages_per_currency
from marketflow.settings import Settings
from marketflow.venues import coingecko

REQUEST_LIMIT_S = 20.0
# CoinGecko's own 429s name two minutes; this serves where an answer does not say.
DEFAULT_RETRY_AFTER_S = 60.0
LONGEST_RETRY_AFTER_S = 3_600.0
FLUSH_S = 20.0
OUTBOX_S = 5.0


def retry_after_s(status: int, header: str | None, now: datetime) -> float | None:
    """How long an answer asks to be left alone: seconds or a date in Retry-After; None where it does not."""
    if status not in (429, 503):
        return None
    if header is None:
        return DEFAULT_RETRY_AFTER_S if status == 429 else None
    if header.strip().isdecimal():
        seconds = float(header.strip())
    else:
        try:
            seconds = (parsedate_to_datetime(header) - now).total_seconds()
        except (ValueError, TypeError):
            seconds = DEFAULT_RETRY_AFTER_S
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S)


def key_headers(settings: Settings) -> dict[str, str]:
    """The request headers that carry the plan's key; empty without one."""
    if settings.coingecko_api_key is None or settings.coingecko_plan == "keyless":
        return {}
    name = coingecko.DEMO_KEY_HEADER if settings.coingecko_plan == "demo" else coingecko.PAID_KEY_HEADER
    return {name: settings.coingecko_api_key.get_secret_value()}


class CoinGeckoPoller:
    """Polls until `stop` is called or a message is lost for good (PublishError)."""

    def __init__(
        self, settings: Settings, publisher: KafkaPublisher, budget: Budget, outbox: Outbox, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._budget = budget
        self._outbox = outbox
        self._metrics = metrics
        self._disk = DiskGuard(settings)
        self._stop = asyncio.Event()
        self._connection_id = uuid4().hex
        self._origin = "live" if settings.dataset == "live" else "simulated"
        self._last_call_s = float("-inf")
        self._quiet_until_s = float("-inf")

    def stop(self) -> None:
        """Finish; an answer that has not arrived is not waited for."""
        self._stop.set()

    async def run(self) -> None:
        """Until stopped. What was received is acknowledged by Kafka when this returns."""
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(self._outbox.run()), tasks.create_task(self._watch())]
            polling = tasks.create_task(self._poll_for_ever())
            stopping = tasks.create_task(self._stop.wait())
            await asyncio.wait((polling, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (polling, stopping, *background):
                task.cancel()
        await asyncio.to_thread(self._publisher.flush, FLUSH_S)
        writer = asyncio.create_task(self._outbox.run())
        if not await self._outbox.drained(OUTBOX_S):
            log("quota_behind", writes=len(self._outbox))
        writer.cancel()
        if self._disk.shortage:
            raise self._disk.shortage

    async def _watch(self) -> None:
        while True:
            self._publisher.poll()
            if self._disk.is_short():
                self.stop()
            self._metrics.in_flight.set(self._publisher.in_flight)
            self._metrics.outbox.set(len(self._outbox))
            await asyncio.sleep(0.25)

    async def _poll_for_ever(self) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_LIMIT_S)
        headers = {"accept": "application/json", "user-agent": "marketflow", **key_headers(self._settings)}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            next_s = time.monotonic()
            while True:
                await self._poll(session)
                wanted_s = effective_interval_s(self._settings)
                interval_s = self._budget.interval_s(wanted_s, calls_per_poll(self._settings), datetime.now(UTC))
                if interval_s > wanted_s:
                    log("spending_evenly", interval_s=round(interval_s, 1), calls_left=self._budget.left)
                next_s = next_poll_s(next_s, interval_s, max(time.monotonic(), self._quiet_until_s))
                await asyncio.sleep(next_s - time.monotonic())

    async def _poll(self, session: aiohttp.ClientSession) -> None:
        """All pages of all currencies, or as many as the source lets us have."""
        poll_id, started_us = uuid4().hex, now_us()
        pages, per_page = pages_per_currency(self._settings.coingecko_assets)
        asked = [(currency, page) for currency in self._settings.vs_currencies for page in range(1, pages + 1)]
        for currency, page in asked:
            await self._keep_distance()
            status = await self._page(session, currency, page, per_page, poll_id, started_us)
            self._metrics.polls.labels(coingecko.VENUE, status).inc()
            if time.monotonic() < self._quiet_until_s:
                break
        self._outbox.add(self._budget.record)
        if self._budget.left is not None:
            self._metrics.quota_left.labels(coingecko.VENUE).set(self._budget.left)

    async def _keep_distance(self) -> None:
        wait_s = self._last_call_s + self._budget.spacing_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._last_call_s = time.monotonic()

    async def _page(
        self, session: aiohttp.ClientSession, currency: str, page: int, per_page: int, poll_id: str, started_us: int
    ) -> str:
        """Ask for one page and publish what comes; its status, or `none` where nothing came."""
        request = coingecko.page_request(currency, page, per_page)
        self._budget.spend(datetime.now(UTC))
        try:
            url = URL(self._settings.venue_urls["coingecko_rest"] + request, encoded=True)
            async with session.get(url, allow_redirects=False) as answer:
                value = await answer.read()
                status, retry_after = answer.status, answer.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log("no_answer", request=request, error=f"{type(error).__name__}: {error}")
            return "none"
        received = now_us()
        headers = {
            "schema_version": SCHEMA_VERSION,
            "venue": coingecko.VENUE,
            "channel": coingecko.CHANNEL,
            "received_at": str(received),
            "connection_id": self._connection_id,
            "origin": self._origin,
            "request": request,
            "http_status": str(status),
            "vs_currency": currency,
            "poll_id": poll_id,
            "poll_started_at": str(started_us),
            "page": str(page),
        }
        encoded = [(name, text.encode()) for name, text in headers.items()]
        while not self._publisher.try_publish(
            coingecko.topic_of(value), message_key(coingecko.VENUE, None), value, encoded
        ):
            await asyncio.sleep(0.05)
        self._metrics.messages.labels(coingecko.VENUE, coingecko.CHANNEL).inc()
        self._metrics.bytes.inc(len(value))
        self._metrics.last_message.set(received / 1e6)
        quiet_s = retry_after_s(status, retry_after, datetime.now(UTC))
        if quiet_s is not None:
            self._quiet_until_s = time.monotonic() + quiet_s
        if status != 200:
            log("answer", request=request, http_status=status, bytes=len(value), quiet_for_s=quiet_s)
        return str(status)


def next_poll_s(due_s: float, interval_s: float, not_before_s: float) -> float:
    """The next time on the grid of `due_s` and `interval_s` after `not_before_s`: missed polls are not caught up."""
    steps = max(1, math.floor((not_before_s - due_s) / interval_s) + 1)
    return due_s + steps * interval_s
