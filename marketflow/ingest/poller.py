"""The poller of any polled source: its calls at a steady interval, every answer to Kafka whatever its status.

What a source is asked and how it asks for rest is `venues.polls`; what its plan allows is `ingest.quotas`.
"""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import aiohttp
from yarl import URL

from marketflow.contracts.sources import Source
from marketflow.contracts.topics import SCHEMA_VERSION, message_key
from marketflow.ingest.answers import LONGEST_RETRY_AFTER_S, Verdict, failure, retry_after_s, shown, verdict
from marketflow.ingest.disk import DiskGuard
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.names import connector
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.publisher import KafkaPublisher, now_us
from marketflow.ingest.quotas import Budget, effective_interval_s
from marketflow.ingest.watch import watch
from marketflow.settings import Settings
from marketflow.venues.polls import POLLS, Request

REQUEST_LIMIT_S = 20.0
FLUSH_S = 20.0
OUTBOX_S = 5.0


class Poller:
    """Polls until `stop` is called or a message is lost for good (PublishError)."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        publisher: KafkaPublisher,
        budget: Budget,
        outbox: Outbox,
        metrics: Metrics,
        *,
        request_limit_s: float = REQUEST_LIMIT_S,
    ) -> None:
        self._settings = settings
        self._source = source
        self._asked = POLLS[source.name]
        self._place = settings.venue_urls[source.places[0]]
        self._key_headers = self._asked.key_headers(settings)
        self._request_limit_s = request_limit_s
        self._publisher = publisher
        self._budget = budget
        self._outbox = outbox
        self._metrics, self._pulse = metrics, metrics.pulse
        self._disk = DiskGuard(settings)
        self._stop = asyncio.Event()
        self._connection_id = uuid4().hex
        self._origin = "live" if settings.dataset == "live" else "simulated"
        self._free_at_s = float("-inf")
        self._quiet_until_s = float("-inf")

    def stop(self) -> None:
        """Finish; an answer that has not arrived is not waited for."""
        self._stop.set()

    async def run(self) -> None:
        """Until stopped. What was received is acknowledged by Kafka when this returns."""
        async with asyncio.TaskGroup() as tasks:
            beside = watch(self._publisher, self._disk, self._metrics, self.stop, self._outbox)
            background = [tasks.create_task(self._outbox.run()), tasks.create_task(beside)]
            polling = tasks.create_task(self._poll_for_ever())
            stopping = tasks.create_task(self._stop.wait())
            await asyncio.wait((polling, stopping), return_when=asyncio.FIRST_COMPLETED)
            for task in (polling, stopping, *background):
                task.cancel()
        await asyncio.to_thread(self._publisher.flush, FLUSH_S)
        if self._budget.spent_here:  # a call that the stop cut short was sent all the same
            self._outbox.add(self._budget.record)
        writer = asyncio.create_task(self._outbox.run())
        if not await self._outbox.drained(OUTBOX_S):
            log("quota_behind", writes=len(self._outbox))
        writer.cancel()
        if self._disk.shortage:
            raise self._disk.shortage

    async def _poll_for_ever(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self._request_limit_s)
        headers = {"accept": "application/json", "user-agent": "marketflow", **self._key_headers}
        wanted_s, units = effective_interval_s(self._settings, self._source), self._asked.units(self._settings)
        sent = aiohttp.TraceConfig()
        sent.on_request_headers_sent.append(self._spend)
        async with aiohttp.ClientSession(
            connector=connector(), timeout=timeout, headers=headers, trace_configs=[sent]
        ) as session:
            next_s = time.monotonic()
            while True:
                await self._poll(session)
                interval_s = self._budget.interval_s(wanted_s, units, datetime.now(UTC))
                if interval_s > wanted_s:
                    log("spending_evenly", interval_s=round(interval_s, 1), calls_left=self._budget.left)
                next_s = next_poll_s(next_s, interval_s, max(time.monotonic(), self._quiet_until_s))
                self._pulse.due_in(next_s - time.monotonic())
                await asyncio.sleep(next_s - time.monotonic())

    async def _spend(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, _: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        """Count what really goes out: the client sends a request again where a kept connection was closed under it."""
        self._budget.spend(datetime.now(UTC), context.trace_request_ctx.units)

    async def _poll(self, session: aiohttp.ClientSession) -> None:
        """All calls of one poll, or as many as the source lets us have."""
        poll_id, started_us = uuid4().hex, now_us()
        for request in self._asked.requests(self._settings):
            await self._keep_distance(request)
            label = await self._ask(session, request, poll_id, started_us)
            self._metrics.polls.labels(self._source.venue, label).inc()
            if time.monotonic() < self._quiet_until_s:
                break
        self._outbox.add(self._budget.record)
        if self._budget.left is not None:
            self._metrics.quota_left.labels(self._source.venue).set(self._budget.left)

    async def _keep_distance(self, request: Request) -> None:
        wait_s = self._free_at_s - time.monotonic()
        self._pulse.due_in(max(0.0, wait_s))
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        self._free_at_s = time.monotonic() + request.units * self._budget.spacing_s

    async def _ask(self, session: aiohttp.ClientSession, request: Request, poll_id: str, started_us: int) -> str:
        """Send one request and publish what comes; what it is counted as."""
        url = URL(self._place + request.text, encoded=True)
        try:
            async with session.get(url, allow_redirects=False, trace_request_ctx=request) as answer:
                value = await answer.read()
                received, status = now_us(), answer.status
                retry_after = answer.headers.get("Retry-After")
                used = answer.headers.get(self._asked.used_header) if self._asked.used_header else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = failure(error)
            log("no_answer", request=request.text, what=what.label, means=what.means)
            return what.label
        headers = self._headers(request, poll_id, started_us) | {
            "received_at": str(received),
            "http_status": str(status),
        }
        await self._publish(value, headers)
        self._metrics.messages.labels(self._source.venue, self._asked.channel).inc()
        self._metrics.bytes.inc(len(value))
        self._metrics.last_message.set(received / 1e6)
        if used is not None and used.isdecimal():
            self._metrics.minute_used.labels(self._source.venue).set(int(used))
        quiet_s = retry_after_s(status, retry_after, datetime.now(UTC))
        if status == 200:
            asked_s = self._asked.asks_to_wait_s(value)
            quiet_s = None if asked_s is None else min(asked_s, LONGEST_RETRY_AFTER_S)
        if quiet_s is not None:
            self._quiet_until_s = time.monotonic() + quiet_s
        return self._told(request, status, value, verdict(headers, value), quiet_s)

    def _headers(self, request: Request, poll_id: str, started_us: int) -> dict[str, str]:
        found = {
            "schema_version": SCHEMA_VERSION,
            "venue": self._source.venue,
            "channel": self._asked.channel,
            "connection_id": self._connection_id,
            "origin": self._origin,
            "request": request.text,
            "poll_id": poll_id,
            "poll_started_at": str(started_us),
            "page": str(request.page),
        }
        return found if request.vs_currency is None else found | {"vs_currency": request.vs_currency}

    async def _publish(self, value: bytes, headers: dict[str, str]) -> None:
        key, encoded = message_key(self._source.venue, None), [(name, text.encode()) for name, text in headers.items()]
        while not self._publisher.try_publish(self._asked.topic, key, value, encoded):
            self._pulse.due_in(0)
            await asyncio.sleep(0.05)

    def _told(self, request: Request, status: int, value: bytes, found: Verdict, quiet_s: float | None) -> str:
        """One event for an answer that brings no price, or that asks for rest; what it is counted as."""
        if found.means is not None or quiet_s is not None:
            log(
                "answer",
                request=request.text,
                http_status=status,
                bytes=len(value),
                means=found.means,
                says=shown(value, self._key_headers),
                quiet_for_s=quiet_s,
            )
        return found.label


def next_poll_s(due_s: float, interval_s: float, not_before_s: float) -> float:
    """The next time on the grid of `due_s` and `interval_s` after `not_before_s`: missed polls are not caught up."""
    steps = max(1, math.floor((not_before_s - due_s) / interval_s) + 1)
    return due_s + steps * interval_s
