"""A WebSocket feed: every frame that arrives reaches Kafka as it came, and every loss is known.

One asyncio process. The reader only moves frames from the socket into a bounded queue; the publisher takes them out,
looks at the ids and hands the bytes to Kafka's client. When Kafka is away the queue fills; when it is full the reader
closes the socket, waits until it is empty and connects again, and what the venue traded meanwhile becomes a hole with
the cause `backpressure`. Nothing is dropped from a queue.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from marketflow.contracts.sources import Source
from marketflow.contracts.topics import SCHEMA_VERSION, message_key
from marketflow.errors import PublishError
from marketflow.ingest.disk import DiskGuard
from marketflow.ingest.frames import Ended, Frame, FrameQueue
from marketflow.ingest.gaps import Cause
from marketflow.ingest.holes import HoleKeeper
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.publisher import KafkaPublisher, now_us
from marketflow.settings import Settings
from marketflow.venues.feeds import PROTOCOLS

MAX_FRAME_BYTES = 16 * 1024**2
PUBLISH_BATCH = 1_000
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# A connection that lived this long was a good one: the next attempt starts the backoff anew.
GOOD_CONNECTION_S = 10.0
FLUSH_S = 20.0
OUTBOX_S = 5.0

Work = Callable[[], Coroutine[Any, Any, None]]


class Feed:
    """Reads, tracks and publishes until `stop` is set or a message is lost for good (PublishError)."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        publisher: KafkaPublisher,
        holes: HoleKeeper,
        outbox: Outbox,
        metrics: Metrics,
        *,
        first_delay_s: float = FIRST_DELAY_S,
    ) -> None:
        self._settings = settings
        self._source = source
        self._protocol = PROTOCOLS[source.venue]
        self._products = settings.products_of(source)
        self._silence_s = settings.feed_silence_s if self._protocol.heartbeats else 4 * settings.feed_silence_s
        self._publisher = publisher
        self._holes = holes
        self._outbox = outbox
        self._metrics, self._pulse = metrics, metrics.pulse
        self._first_delay_s = first_delay_s
        self._queue = FrameQueue(settings.feed_queue_messages)
        self._disk = DiskGuard(settings)
        self._stop = asyncio.Event()
        self._socket: ClientConnection | None = None
        self._heard_s = time.monotonic()
        self._silent = False
        self._connection_id = b""
        self._numbered: tuple[bytes, int] = (b"", 0)
        self._background: list[Work] = []
        self._suspect: Callable[[], None] | None = None
        venue = source.venue
        self._keys = {product: message_key(venue, product) for product in (*self._products, None)}
        origin = "live" if settings.dataset == "live" else "simulated"
        self._fixed_headers = [
            ("schema_version", SCHEMA_VERSION.encode()),
            ("venue", venue.encode()),
            ("origin", origin.encode()),
        ]

    @property
    def behind(self) -> bool:
        """Whether messages wait between socket and Kafka's client."""
        return len(self._queue) > 0

    def beside(self, *works: Work, suspect: Callable[[], None] | None = None) -> None:
        """What runs as long as the feed does; `suspect` is told when something may have been lost without a trace."""
        self._background += works
        self._suspect = suspect

    def stop(self) -> None:
        """Stop reading; `run` then publishes what it has and returns."""
        self._stop.set()

    async def run(self) -> None:
        """Until stopped. What was received is acknowledged by Kafka when this returns."""
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(work()) for work in self._works()]
            await self._read()
            await self._within(self._queue.drained(), FLUSH_S)
            for task in background:
                task.cancel()
        await self._leave()
        if self._disk.shortage:
            raise self._disk.shortage

    def _works(self) -> tuple[Work, ...]:
        return (self._watch, self._outbox.run, self._publish, *self._background)

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
            self._pulse.due_in(0)
            cause, why = await self._one_connection()
            self._metrics.connected.set(0)
            if self._stop.is_set():
                break
            self._queue.put(Ended(cause))
            self._metrics.reconnects.labels(self._source.venue, why.split(":")[0]).inc()
            if cause == "backpressure":
                log("backpressure", queue=len(self._queue), detail="socket closed until the queue is empty")
                self._pulse.waits()
                await self._until_stopped(self._queue.drained())
            attempt = 0 if time.monotonic() - opened_s >= GOOD_CONNECTION_S else attempt + 1
            delay_s = min(LONGEST_DELAY_S, self._first_delay_s * 2 ** min(attempt, 10)) * random.uniform(0.5, 1)  # noqa: S311
            log("reconnecting", why=why, in_s=round(delay_s, 2))
            self._pulse.due_in(delay_s)
            await self._until_stopped(asyncio.sleep(delay_s))

    async def _one_connection(self) -> tuple[Cause, str]:
        """Read one connection to its end; why it ended, for the ledger and for people."""
        url = self._settings.venue_urls[self._source.places[0]] + self._protocol.path
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
            for message in self._protocol.subscribe(self._products):
                await socket.send(message.decode())
            log("connected", url=url, connection_id=self._connection_id.decode())
            if self._suspect is not None:
                self._suspect()
            connection_id, queue, receive = self._connection_id, self._queue, socket.recv
            try:
                while not queue.full:
                    value = await receive(decode=False)
                    self._heard_s = time.monotonic()
                    queue.put(Frame(connection_id, now_us(), value))
            finally:
                self._socket = None

    async def _watch(self) -> None:
        """Close a connection that says nothing for longer than the venue is ever quiet."""
        silence_s = self._silence_s
        while True:
            await asyncio.sleep(min(1.0, silence_s / 4))
            self._pulse.beat()
            self._publisher.poll()
            if self._disk.is_short():
                self.stop()
            self._metrics.outbox.set(len(self._outbox))
            socket, quiet_s = self._socket, time.monotonic() - self._heard_s
            if socket is not None:
                self._pulse.due_in(silence_s - quiet_s)
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
        size = last_us = 0
        for _ in range(min(PUBLISH_BATCH, len(self._queue))):
            item = await self._queue.first()
            if isinstance(item, Ended):
                self._holes.disconnected(item.cause)
            else:
                channel = await self._publish_frame(item)
                counts[channel] = counts.get(channel, 0) + 1
                size += len(item.value)
                last_us = item.received_us
            self._queue.pop()
        if last_us:
            self._metrics.last_message.set(last_us / 1e6)
        for channel, count in counts.items():
            self._metrics.messages.labels(self._source.venue, channel).inc(count)
        self._metrics.bytes.inc(size)
        self._metrics.queue.set(len(self._queue))
        self._metrics.in_flight.set(self._publisher.in_flight)
        self._holes.close_filled()

    async def _publish_frame(self, frame: Frame) -> str:
        """Hand one frame to Kafka's client, then look at its ids; its channel, for counting."""
        seen = self._protocol.look(frame.value)
        headers = [
            *self._fixed_headers,
            ("channel", seen.channel.encode()),
            ("received_at", b"%d" % frame.received_us),
            ("connection_id", frame.connection_id),
        ]
        least = self._holes.least(seen) if seen.trades else None
        if least is not None:
            headers.append(("least_trade_id", least))
        key = self._keys.get(seen.product_id) or message_key(self._source.venue, seen.product_id)
        while not self._publisher.try_publish(seen.topic, key, frame.value, headers):
            self._metrics.queue.set(len(self._queue))
            await asyncio.sleep(0.01)
        if seen.number is not None:
            self._count(frame.connection_id, seen.number)
        if seen.trades or seen.announced is not None:
            self._holes.seen(seen, frame.received_us, frame.connection_id.decode())
        return seen.channel

    def _count(self, connection_id: bytes, number: int) -> None:
        """Hold a message's number against that of the message before it on its connection."""
        of, last = self._numbered
        if of == connection_id and number > last + 1:
            self._metrics.lost.inc(number - last - 1)
            log("messages_lost", connection_id=connection_id.decode(), after=last, before=number)
            if self._suspect is not None:
                self._suspect()
        if of != connection_id or number > last:
            self._numbered = (connection_id, number)
