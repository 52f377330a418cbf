"""The Coinbase Exchange feed: every frame that arrives reaches Kafka as it came, and every loss is known.

One asyncio process. The reader only moves frames from the socket into a bounded queue; the publisher takes them out,
looks at the ids and hands the bytes to Kafka's client. When Kafka is away the queue fills; when it is full the reader
closes the socket, waits until it is empty and connects again, and what the venue traded meanwhile becomes a hole with
the cause `backpressure`. Nothing is dropped from a queue.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from marketflow.contracts.topics import SCHEMA_VERSION, message_key
from marketflow.errors import PublishError
from marketflow.ingest.disk import DiskGuard
from marketflow.ingest.gaps import Cause, Event, Filled, Gap, GapTracker, holes_between
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.outbox import Outbox, Write
from marketflow.ingest.publisher import KafkaPublisher, now_us
from marketflow.settings import Settings
from marketflow.venues import coinbase_exchange
from marketflow.warehouse import ledger

MAX_FRAME_BYTES = 16 * 1024**2
# The queue is also bounded in bytes, or 120,000 large frames would be the machine's memory.
MAX_QUEUE_BYTES = 256 * 1024**2
PUBLISH_BATCH = 1_000
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# A connection that lived this long was a good one: the next attempt starts the backoff anew.
GOOD_CONNECTION_S = 10.0
FLUSH_S = 20.0
OUTBOX_S = 5.0


class Frame(msgspec.Struct, gc=False):
    """One frame as received."""

    connection_id: bytes
    received_us: int
    value: bytes


class Ended(msgspec.Struct):
    """A connection ended here in the order of frames."""

    cause: Cause


class FrameQueue:
    """Frames in order between reader and publisher. `full` is for the reader to look at before it reads on."""

    def __init__(self, max_messages: int) -> None:
        self._max_messages = max_messages
        self._items: deque[Frame | Ended] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()

    def __len__(self) -> int:
        """Frames waiting."""
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the reader must stop."""
        return len(self._items) >= self._max_messages or self._bytes >= MAX_QUEUE_BYTES

    def put(self, item: Frame | Ended) -> None:
        """Add one; the reader asks `full` first."""
        self._items.append(item)
        if isinstance(item, Frame):
            self._bytes += len(item.value)
        self._filled.set()
        self._drained.clear()

    async def first(self) -> Frame | Ended:
        """The oldest item, still in the queue; waits for one."""
        while not self._items:
            self._filled.clear()
            self._drained.set()
            await self._filled.wait()
        return self._items[0]

    def pop(self) -> None:
        """Remove the oldest item: it is Kafka's client's now."""
        item = self._items.popleft()
        if isinstance(item, Frame):
            self._bytes -= len(item.value)
        if not self._items:
            self._drained.set()

    async def drained(self) -> None:
        """Wait until the queue is empty."""
        await self._drained.wait()


class CoinbaseFeed:
    """Reads, tracks and publishes until `stop` is set or a message is lost for good (PublishError)."""

    def __init__(
        self,
        settings: Settings,
        publisher: KafkaPublisher,
        tracker: GapTracker,
        outbox: Outbox,
        metrics: Metrics,
        *,
        first_delay_s: float = FIRST_DELAY_S,
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        self._tracker = tracker
        self._outbox = outbox
        self._metrics = metrics
        self._first_delay_s = first_delay_s
        self._queue = FrameQueue(settings.feed_queue_messages)
        self._disk = DiskGuard(settings)
        self._stop = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._heard_s = time.monotonic()
        self._silent = False
        self._connection_id = b""
        self._connection_of_events = ""
        self._filled: dict[str, list[int]] = {}
        venue = coinbase_exchange.VENUE
        self._keys = {product: message_key(venue, product) for product in (*settings.products, None)}
        origin = "live" if settings.dataset == "live" else "simulated"
        self._fixed_headers = [
            ("schema_version", SCHEMA_VERSION.encode()),
            ("venue", venue.encode()),
            ("origin", origin.encode()),
        ]

    def stop(self) -> None:
        """Stop reading; `run` then publishes what it has and returns."""
        self._stop.set()

    async def run(self) -> None:
        """Until stopped. What was received is acknowledged by Kafka when this returns."""
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(work()) for work in (self._watch, self._outbox.run, self._publish)]
            await self._read()
            await self._within(self._queue.drained(), FLUSH_S)
            for task in background:
                task.cancel()
        await self._leave()
        if self._disk.shortage:
            raise self._disk.shortage

    async def _within(self, waiting: Coroutine[Any, Any, None], limit_s: float) -> None:
        try:
            await asyncio.wait_for(waiting, limit_s)
        except TimeoutError:
            raise PublishError(
                f"{len(self._queue)} received messages could not be handed to Kafka within {limit_s:.0f} s; "
                "their trades are a hole that the next start records"
            ) from None

    async def _leave(self) -> None:
        await asyncio.to_thread(self._publisher.flush, FLUSH_S)
        writer = asyncio.create_task(self._outbox.run())
        if not await self._outbox.drained(OUTBOX_S):
            log("ledger_behind", writes=len(self._outbox), detail="holes are found again from Kafka's tail at start")
        writer.cancel()

    # reading

    async def _read(self) -> None:
        attempt = 0
        while not self._stop.is_set():
            opened_s = time.monotonic()
            cause, why = await self._one_connection()
            self._metrics.connected.set(0)
            if self._stop.is_set():
                break
            self._queue.put(Ended(cause))
            self._metrics.reconnects.labels(coinbase_exchange.VENUE, why.split(":")[0]).inc()
            if cause == "backpressure":
                log("backpressure", queue=len(self._queue), detail="socket closed until the queue is empty")
                await self._until_stopped(self._queue.drained())
            attempt = 0 if time.monotonic() - opened_s >= GOOD_CONNECTION_S else attempt + 1
            delay_s = min(LONGEST_DELAY_S, self._first_delay_s * 2 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311
            log("reconnecting", why=why, in_s=round(delay_s, 2))
            await self._until_stopped(asyncio.sleep(delay_s))

    async def _one_connection(self) -> tuple[Cause, str]:
        """Read one connection to its end; why it ended, for the ledger and for people."""
        url = self._settings.venue_urls["coinbase_ws"]
        reading = asyncio.create_task(self._receive(url))
        await self._until_stopped(reading)
        if reading.cancelled():
            return "reconnect", "stopped"
        try:
            reading.result()
        except (OSError, TimeoutError, WebSocketException) as error:
            why = f"{type(error).__name__}: {error}"
            return "reconnect", f"silence: {why}" if self._silent else why
        return "backpressure", "backpressure"

    async def _until_stopped(self, waiting: Coroutine[Any, Any, None] | asyncio.Task[None]) -> None:
        """Wait for something, or for `stop`, which cancels it. What it raised stays in it."""
        work = waiting if isinstance(waiting, asyncio.Task) else asyncio.create_task(waiting)
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))

    async def _receive(self, url: str) -> None:
        """Frames into the queue until it is full; raises what ended the connection otherwise."""
        async with connect(
            url,
            compression=None,
            max_size=MAX_FRAME_BYTES,
            max_queue=(2_048, 512),
            open_timeout=10,
            close_timeout=2,
            user_agent_header="marketflow",
        ) as socket:
            self._connection_id = uuid4().hex.encode()
            self._socket = socket
            self._heard_s = time.monotonic()
            self._silent = False
            self._metrics.connected.set(1)
            for message in coinbase_exchange.subscribe(self._settings.products):
                await socket.send(message.decode())
            log("connected", url=url, connection_id=self._connection_id.decode())
            connection_id, queue, receive = self._connection_id, self._queue, socket.recv
            try:
                while not queue.full:
                    value = await receive(decode=False)
                    self._heard_s = time.monotonic()
                    queue.put(Frame(connection_id, now_us(), value))
            finally:
                self._socket = None

    async def _watch(self) -> None:
        """Close a connection that says nothing, although heartbeats were asked for."""
        silence_s = self._settings.feed_silence_s
        while True:
            await asyncio.sleep(min(1.0, silence_s / 4))
            self._publisher.poll()
            if self._disk.is_short():
                self.stop()
            self._metrics.outbox.set(len(self._outbox))
            socket, quiet_s = self._socket, time.monotonic() - self._heard_s
            if socket is not None and quiet_s > silence_s:
                log("silence", quiet_s=round(quiet_s, 1), limit_s=silence_s)
                self._silent = True
                await socket.close(code=1001, reason="silence")

    # publishing

    async def _publish(self) -> None:
        while True:
            await self._queue.first()
            await self._publish_batch()
            self._publisher.poll()
            await asyncio.sleep(0)

    async def _publish_batch(self) -> None:
        counts: dict[str, int] = {}
        size = 0
        for _ in range(min(PUBLISH_BATCH, len(self._queue))):
            item = await self._queue.first()
            if isinstance(item, Ended):
                self._tracker.disconnected(item.cause)
            else:
                channel = await self._publish_frame(item)
                counts[channel] = counts.get(channel, 0) + 1
                size += len(item.value)
                self._metrics.last_message.set(item.received_us / 1e6)
            self._queue.pop()
        for channel, count in counts.items():
            self._metrics.messages.labels(coinbase_exchange.VENUE, channel).inc(count)
        self._metrics.bytes.inc(size)
        self._metrics.queue.set(len(self._queue))
        self._metrics.in_flight.set(self._publisher.in_flight)
        self._close_filled()

    async def _publish_frame(self, frame: Frame) -> str:
        """Hand one frame to Kafka's client, then look at its ids; its channel, for counting."""
        glimpse = coinbase_exchange.glimpse(frame.value)
        product_id, channel = glimpse.canonical_product, glimpse.channel
        headers = [
            *self._fixed_headers,
            ("channel", channel.encode()),
            ("received_at", b"%d" % frame.received_us),
            ("connection_id", frame.connection_id),
        ]
        key = self._keys.get(product_id) or message_key(coinbase_exchange.VENUE, product_id)
        while not self._publisher.try_publish(glimpse.topic, key, frame.value, headers):
            self._metrics.queue.set(len(self._queue))
            await asyncio.sleep(0.01)
        self._connection_of_events = frame.connection_id.decode()
        if product_id is None:
            return channel
        if glimpse.is_trade and glimpse.trade_id is not None:
            self._report(self._tracker.trade(product_id, glimpse.trade_id))
        elif glimpse.type == "heartbeat" and glimpse.last_trade_id is not None:
            # Stream time, not the clock: while the queue is long, the trade may be in it too.
            self._tracker.heartbeat(product_id, glimpse.last_trade_id, frame.received_us / 1e6)
            for gap in self._tracker.overdue(frame.received_us / 1e6):
                self._report(gap)
        return channel

    # the ledger

    def _report(self, event: Event | None) -> None:
        if isinstance(event, Gap):
            self._metrics.gaps.labels(event.venue, event.cause).inc()
            self._metrics.missing.inc(event.missing)
            log("gap", **_shown(event))
            self._outbox.add(open_write(event, datetime.now(UTC), self._connection_of_events))
        elif isinstance(event, Filled):
            self._metrics.filled.inc()
            self._filled.setdefault(event.product_id, []).append(event.trade_id)

    def _close_filled(self) -> None:
        """Tell the ledger which missing trades of this batch arrived after all, as ranges."""
        for product_id, ids in self._filled.items():
            for first, last in ranges(ids):
                log("gap_filled", product_id=product_id, first_id=first, last_id=last)
                self._outbox.add(
                    partial(
                        ledger.close_hole,
                        venue=coinbase_exchange.VENUE,
                        product_id=product_id,
                        first_id=first,
                        last_id=last,
                        at=datetime.now(UTC),
                    )
                )
        self._filled.clear()


def open_write(gap: Gap, detected_at: datetime, connection_id: str | None) -> Write:
    """The ledger write that opens a hole."""
    return partial(
        ledger.open_hole,
        venue=gap.venue,
        product_id=gap.product_id,
        first_missing_id=gap.first_missing_id,
        last_missing_id=gap.last_missing_id,
        cause=gap.cause,
        detected_at=detected_at,
        connection_id=connection_id or None,
    )


def ranges(ids: list[int]) -> list[tuple[int, int]]:
    """Ids as contiguous ranges, first and last inclusive."""
    ordered = sorted(set(ids))
    edges = holes_between(ordered)
    firsts = [ordered[0], *(last + 1 for _, last in edges)]
    lasts = [*(first - 1 for first, _ in edges), ordered[-1]]
    return list(zip(firsts, lasts, strict=True))


def _shown(gap: Gap) -> dict[str, object]:
    return {
        "product_id": gap.product_id,
        "first_missing_id": gap.first_missing_id,
        "last_missing_id": gap.last_missing_id,
        "missing": gap.missing,
        "cause": gap.cause,
    }
