"""The WebSocket server of all feeds: a path is a venue's, and each venue has its clients, its stalls and its refusals.

A message is encoded and framed once, whoever listens, and only where somebody listens; a client gets all frames of a
batch in one write. The library answers pings and closes between such writes, which hold whole frames only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from marketflow.simulator.faults import FaultKind
from marketflow.simulator.feed_faults import FeedFaults
from marketflow.simulator.feed_messages import Batch, Stream, WireMessage, frame, half_of_first
from marketflow.simulator.market import Event, Trade
from marketflow.simulator.texts import SECOND_US

MAX_CLIENT_MESSAGE_BYTES = 256 * 1024
POLICY_VIOLATION = 1008
GOING_AWAY = 1001
STALL_S = 30.0


class Session(Protocol):
    """What one connection asked for; a venue's own kind knows more."""

    wanted: frozenset[Stream]


class Dialect(Protocol):
    """How a venue speaks: what its clients may ask, and how events become its messages."""

    venue: str
    trades_channel: str
    products: frozenset[str]
    must_subscribe: bool  # or be closed

    def session(self, path: str, query: Mapping[str, str]) -> Any:
        """A new connection's Session, or None where the venue has no such path."""

    def answer(self, session: Any, message: str | bytes, now_us: int) -> list[bytes]:
        """Whatever a client's message brings at once."""

    def messages(self, events: Sequence[Event]) -> list[WireMessage]:
        """The venue's messages of a batch."""

    def remember(self, trades: Sequence[Trade]) -> None:
        """Keep what a new subscriber is told first."""

    def frames(self, session: Any, batch: Batch) -> tuple[bytes, int]:
        """A batch's frames for one connection, and how many messages they are."""


class Client:
    """One connection and what it asked for."""

    def __init__(self, connection: ServerConnection, session: Session, slow_reader_bytes: int) -> None:
        self.connection = connection
        self.session = session
        self.is_cut_next = False
        self._slow_reader_bytes = slow_reader_bytes
        self._held: list[tuple[bytes, int]] = []

    def write(self, frames: bytes) -> bool:
        """Hand over frames; false where the reader was too slow and has been cut."""
        if self.connection.state is not State.OPEN:
            return True  # it is leaving: after a close frame nothing may follow
        transport = self.connection.transport
        if transport.get_write_buffer_size() > self._slow_reader_bytes:
            transport.abort()
            return False
        transport.write(half_of_first(frames) if self.is_cut_next else frames)
        if self.is_cut_next:
            transport.close()  # what was written still goes out, unlike with an abort
        return True

    def hold(self, frames: bytes, messages: int) -> None:
        """Keep frames back while the venue stalls."""
        if frames:
            self._held.append((frames, messages))

    def take_held(self) -> tuple[bytes, int]:
        """What was kept back, in order."""
        held, self._held = self._held, []
        return b"".join(frames for frames, _ in held), sum(messages for _, messages in held)


class VenueFeed:
    """One venue's clients."""

    def __init__(self, dialect: Dialect, faults: FeedFaults, *, book: str, slow_reader_bytes: int) -> None:
        """`book` is the venue whose listings it tells."""
        self.dialect = dialect
        self.clients: set[Client] = set()
        self.slow_readers_cut = 0
        self.sent_messages = 0
        self.is_refusing_until_us = 0
        self._faults = faults
        self._book = book
        self._slow_reader_bytes = slow_reader_bytes
        self._stalled_until_us = 0

    @property
    def heard(self) -> set[str]:
        """Products whose trades somebody hears."""
        return {
            product_id
            for client in self.clients
            for channel, product_id in client.session.wanted
            if channel == self.dialect.trades_channel
        }

    def tell(self, events: Sequence[Event], now_us: int, is_forgotten: Callable[[Trade], bool]) -> None:
        """Send a batch to whoever subscribed to its parts, in order, in one write each."""
        own = [event for event in events if event.listing.venue == self._book]
        if any(client.session.wanted for client in self.clients):
            messages = self._faults.apply(self.dialect.messages(own), now_us)
            for hit in self._faults.take_connection_hits():
                self.misbehave(hit.fault, hit.seconds)
            batch = Batch(messages)
            for client in list(self.clients):
                if client.session.wanted:
                    self._write(client, *self.dialect.frames(client.session, batch))
        self.dialect.remember([event for event in own if isinstance(event, Trade) and not is_forgotten(event)])

    async def converse(self, client: Client, subscribe_within_s: float) -> None:
        """Answer a client until it leaves."""
        connection = client.connection
        self.clients.add(client)
        try:
            async with asyncio.timeout(subscribe_within_s if self.dialect.must_subscribe else None):
                while self.dialect.must_subscribe and not client.session.wanted:
                    self._answer(client, await connection.recv(decode=False))
            async for message in connection:
                self._answer(client, message)
        except TimeoutError:
            await connection.close(POLICY_VIOLATION, "no subscription in time")
        except ConnectionClosed:
            return  # leaving is a client's right, with or without a close frame
        finally:
            self.clients.discard(client)

    def _answer(self, client: Client, message: str | bytes) -> None:
        payloads = self.dialect.answer(client.session, message, now_us())
        self._write(client, b"".join(map(frame, payloads)), len(payloads))

    def _write(self, client: Client, frames: bytes, messages: int) -> None:
        if now_us() < self._stalled_until_us:
            client.hold(frames, messages)
            return
        held, held_messages = client.take_held()
        frames, messages = held + frames, held_messages + messages
        if not frames:
            return
        if not client.write(frames):
            self.slow_readers_cut += 1
            self.clients.discard(client)
        if client.is_cut_next:
            self.clients.discard(client)
        else:
            self.sent_messages += messages

    def misbehave(self, fault: FaultKind, seconds: float | None) -> None:
        """Disconnect and refuse for a while, stall, or end every connection within a frame."""
        if fault is FaultKind.DISCONNECT:
            self.is_refusing_until_us = now_us() + int((seconds or 0.0) * SECOND_US)
            for client in list(self.clients):
                client.connection.transport.abort()
        elif fault is FaultKind.STALL:
            # connections stay open; what was held goes out afterwards to those who stayed
            self._stalled_until_us = now_us() + int((seconds or STALL_S) * SECOND_US)
        else:
            for client in self.clients:
                client.is_cut_next = True

    def new_client(self, connection: ServerConnection, session: Session) -> Client:
        """A client of this venue."""
        return Client(connection, session, self._slow_reader_bytes)


class FeedServer:
    """Listens, and gives each connection to the venue whose path it asked for."""

    def __init__(self, feeds: Sequence[VenueFeed], *, subscribe_within_s: float) -> None:
        self._feeds = feeds
        self._subscribe_within_s = subscribe_within_s
        self._server: Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, also where 0 was asked for."""
        self._server = await serve(
            self._handle,
            host,
            port,
            process_request=self._check_path,
            compression=None,
            max_size=MAX_CLIENT_MESSAGE_BYTES,
        )
        return int(next(iter(self._server.sockets)).getsockname()[1])

    async def stop(self) -> None:
        """Close every connection as a venue that goes away does."""
        if self._server is not None:
            self._server.close(code=GOING_AWAY)
            await self._server.wait_closed()

    def _route(self, path: str) -> tuple[VenueFeed, Session] | None:
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        for feed in self._feeds:
            session = feed.dialect.session(parts.path.rstrip("/"), query)
            if session is not None:
                return feed, session
        return None

    def _check_path(self, connection: ServerConnection, request: Request) -> Response | None:
        routed = self._route(request.path)
        if routed is None:
            feeds = ", ".join(f"/{feed.dialect.venue}" for feed in self._feeds)
            return connection.respond(HTTPStatus.NOT_FOUND, f"the feeds are at {feeds}\n")
        if now_us() < routed[0].is_refusing_until_us:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the venue is down\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        routed = self._route(connection.request.path)
        assert routed is not None  # else it was answered 404
        feed, session = routed
        await feed.converse(feed.new_client(connection, session), self._subscribe_within_s)


def now_us() -> int:
    """The clock of the connections."""
    return time.time_ns() // 1000
