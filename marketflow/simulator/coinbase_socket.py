"""The Coinbase Exchange WebSocket feed: subscribe within five seconds, then matches, tickers and heartbeats.

A message is encoded and framed once, whoever listens; a client gets all frames of a batch in one write. The library
answers pings and closes between such writes, which hold whole frames only.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from http import HTTPStatus

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from marketflow.simulator import coinbase_wire
from marketflow.simulator.coinbase_wire import CHANNELS, WireMessage
from marketflow.simulator.texts import SECOND_US

PATH = "/coinbase_exchange"
MAX_CLIENT_MESSAGE_BYTES = 256 * 1024
POLICY_VIOLATION = 1008
GOING_AWAY = 1001


class SubscriptionChannel(msgspec.Struct):
    """A channel with products of its own."""

    name: str
    product_ids: list[str] = []


class ClientRequest(msgspec.Struct):
    """What a client may say; unknown fields (a signature, say) are ignored."""

    type: str
    product_ids: list[str] = []
    channels: list[str | SubscriptionChannel] = []


def frame(payload: bytes) -> bytes:
    """One unmasked text frame, as servers send them (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return struct.pack("!BBH", 0x81, 126, length) + payload
    return struct.pack("!BBQ", 0x81, 127, length) + payload


class Client:
    """One connection and what it asked for."""

    def __init__(self, connection: ServerConnection, slow_reader_bytes: int) -> None:
        self.connection = connection
        self.subscribed: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        self.wanted: frozenset[tuple[str, str]] = frozenset()
        self.sent_messages = 0
        self._slow_reader_bytes = slow_reader_bytes
        self._held: list[bytes] = []

    def write(self, frames: bytes, messages: int) -> bool:
        """Hand over frames; false where the reader was too slow and has been cut."""
        if self.connection.state is not State.OPEN:
            return True  # it is leaving: after a close frame nothing may follow
        transport = self.connection.transport
        if transport.get_write_buffer_size() > self._slow_reader_bytes:
            transport.abort()
            return False
        transport.write(frames)
        self.sent_messages += messages
        return True

    def change(self, channel: str, product_id: str, *, subscribe: bool) -> bool:
        """Subscribe or unsubscribe; true where that changed anything."""
        products = self.subscribed[channel]
        if (product_id in products) is subscribe:
            return False
        if subscribe:
            products.append(product_id)
        else:
            products.remove(product_id)
        self.wanted = frozenset((name, product) for name, ids in self.subscribed.items() for product in ids)
        return True

    def hold(self, frames: bytes) -> None:
        """Keep frames back while the venue stalls."""
        if frames:
            self._held.append(frames)

    def take_held(self) -> bytes:
        """What was kept back, in order."""
        held, self._held = b"".join(self._held), []
        return held


class CoinbaseSocket:
    """The feed's server. `last` payloads are what a new subscriber is told first."""

    def __init__(self, products: Sequence[str], *, slow_reader_bytes: int, subscribe_within_s: float) -> None:
        self._products = frozenset(products)
        self._slow_reader_bytes = slow_reader_bytes
        self._subscribe_within_s = subscribe_within_s
        self._server: Server | None = None
        self._stalled_until_us = 0
        self._refuse_until_us = 0
        self.last_match: dict[str, bytes] = {}
        self.last_ticker: dict[str, bytes] = {}
        self.clients: set[Client] = set()
        self.slow_readers_cut = 0
        self.sent_messages = 0

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

    def _check_path(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.split("?")[0].rstrip("/") != PATH:
            return connection.respond(HTTPStatus.NOT_FOUND, f"the feed is at {PATH}\n")
        if _now_us() < self._refuse_until_us:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the venue is down\n")
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        client = Client(connection, self._slow_reader_bytes)
        self.clients.add(client)
        try:
            async with asyncio.timeout(self._subscribe_within_s):
                while not client.wanted:
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
        try:
            request = msgspec.json.decode(message, type=ClientRequest)
        except msgspec.DecodeError as error:
            self._send(client, [coinbase_wire.error("Malformed JSON", str(error))])
            return
        if request.type not in ("subscribe", "unsubscribe"):
            self._send(client, [coinbase_wire.error("Failed to subscribe", f"Type {request.type} is not known")])
            return
        asked = [
            (entry, request.product_ids) if isinstance(entry, str) else _own(entry, request.product_ids)
            for entry in request.channels
        ]
        reason = self._refusal(asked)
        if reason:
            self._send(client, [coinbase_wire.error("Failed to subscribe", reason)])
            return
        changed = [
            (channel, product_id)
            for channel, product_ids in asked
            for product_id in product_ids
            if client.change(channel, product_id, subscribe=request.type == "subscribe")
        ]
        replies = [coinbase_wire.subscriptions(client.subscribed)]
        if request.type == "subscribe":
            snapshots = {"matches": self.last_match, "ticker": self.last_ticker}
            replies += [
                snapshots[channel][product_id]
                for channel, product_id in changed
                if product_id in snapshots.get(channel, ())
            ]
        self._send(client, replies)

    def _refusal(self, asked: Sequence[tuple[str, list[str]]]) -> str:
        """Why a request is refused as a whole; empty where it is not."""
        if not asked:
            return "no channels provided"
        for channel, product_ids in asked:
            if channel not in CHANNELS:
                return f"{channel} is not a valid channel"
            if not product_ids:
                return f"{channel} requires at least one product_id"
            for product_id in product_ids:
                if product_id not in self._products:
                    return f"{product_id} is not a valid product"
        return ""

    def _send(self, client: Client, payloads: Sequence[bytes]) -> None:
        self._write(client, b"".join(map(frame, payloads)), len(payloads))

    def _write(self, client: Client, frames: bytes, messages: int) -> None:
        if _now_us() < self._stalled_until_us:
            client.hold(frames)
            return
        frames = client.take_held() + frames
        if not frames:
            return
        if not client.write(frames, messages):
            self.slow_readers_cut += 1
            self.clients.discard(client)
        self.sent_messages += messages

    def broadcast(self, messages: Sequence[WireMessage]) -> None:
        """Send a batch to whoever subscribed to its parts, in order, in one write each."""
        framed: list[tuple[tuple[str, str], bytes]] | None = None
        joined: dict[frozenset[tuple[str, str]], tuple[bytes, int]] = {}
        for client in list(self.clients):
            if client.wanted not in joined:
                framed = framed or [((entry.channel, entry.product_id), frame(entry.payload)) for entry in messages]
                frames = [each for stream, each in framed if stream in client.wanted]
                joined[client.wanted] = b"".join(frames), len(frames)
            frames_of_client, count = joined[client.wanted]
            if client.wanted:
                self._write(client, frames_of_client, count)

    def disconnect(self, refuse_s: float) -> None:
        """Drop every connection without a word, and refuse new ones for a while."""
        self._refuse_until_us = _now_us() + int(refuse_s * SECOND_US)
        for client in list(self.clients):
            client.connection.transport.abort()

    def stall(self, seconds: float) -> None:
        """Connections stay open and nothing is sent; what was held goes out afterwards to those who stayed."""
        self._stalled_until_us = _now_us() + int(seconds * SECOND_US)


def _own(entry: SubscriptionChannel, global_products: list[str]) -> tuple[str, list[str]]:
    return entry.name, entry.product_ids or global_products


def _now_us() -> int:
    return time.time_ns() // 1000
