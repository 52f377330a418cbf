"""One venue's REST history: every answer to Kafka whatever its status, with the distance between calls kept.

What the client returns is in Kafka by then: who heals a hole may call its ids published.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Literal, TypeVar
from uuid import uuid4

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from marketflow.contracts.topics import SCHEMA_VERSION, TRADES, Topic, message_key
from marketflow.errors import BannedError, ConfigurationError, VenueError
from marketflow.ingest.answers import retry_after_s
from marketflow.ingest.logs import log
from marketflow.ingest.names import connector
from marketflow.ingest.poller import REQUEST_LIMIT_S
from marketflow.ingest.publisher import KafkaPublisher, now_us
from marketflow.settings import Settings
from marketflow.venues.history import OLDER_HEADER, History
from marketflow.venues.history_candles import CandleHistory
from marketflow.venues.polls import POLLS

BANNED = (403, 418, 451)
# an answer that says nothing about when to come back
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
SENDS = 3
# a pause that a call waits out by itself; a longer one is the caller's to know of
LONGEST_PAUSE_S = 10.0
# what a ban that does not say for how long is taken for
BAN_S = 600.0
ACKNOWLEDGED_POLL_S = 0.005

Given = TypeVar("Given")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came with status 200. `headers` are those of the Kafka message, `older` the venue's own next cursor."""

    value: bytes
    headers: dict[str, str]
    older: str | None


class RestClient:
    """`async with RestClient(...) as client`. One task at a time asks; others wait for their turn.

    `origin` is `heal` or `backfill`.
    """

    def __init__(
        self,
        settings: Settings,
        publisher: KafkaPublisher,
        history: History | CandleHistory,
        *,
        origin: Literal["heal", "backfill"] = "heal",
    ) -> None:
        address = settings.venue_urls.get(history.address)
        if address is None:
            raise ConfigurationError(f"no address of {history.venue}'s REST is known ({history.address})")
        self._address = address
        self._publisher = publisher
        self._history = history
        self._key_headers = POLLS[history.venue].key_headers(settings) if history.venue in POLLS else {}
        self._origin = origin
        self._connection_id = uuid4().hex
        self._turn = asyncio.Lock()
        self._next_call_s = float("-inf")
        self._quiet_until_s = float("-inf")
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> RestClient:
        """Open the session; connections are made when they are needed."""
        self._session = aiohttp.ClientSession(
            connector=connector(),
            timeout=aiohttp.ClientTimeout(total=REQUEST_LIMIT_S),
            headers={"accept": "application/json", "user-agent": "marketflow", **self._key_headers},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()

    async def page(
        self,
        request: str,
        product_id: str,
        *,
        weight: int = 1,
        channel: str | None = None,
        topic: Topic = TRADES,
        interval: str | None = None,
    ) -> Answer:
        """Ask for one page until it comes with status 200, a few times; every answer is in Kafka when this returns.

        `interval` is that of a page of candles.

        Raises:
            BannedError: 403, 418 or 451: the venue wants nothing more from here.
            VenueError: no answer with status 200 came, or the venue wants to be left alone for longer than a call
                waits; `retry_after_s` says how long.
            PublishError: Kafka lost the answer for good.
        """
        said = {"channel": channel or self._history.channel} | ({} if interval is None else {"interval": interval})
        return await self._sent(weight, partial(self._ask, request, product_id, said, topic))

    async def look(self, request: str, *, weight: int = 1) -> bytes:
        """Ask, as `page` does, only to find a place in the history: what comes is not kept.

        A trade far from those that are wanted would be a row with a hole on either side.

        Raises:
            BannedError, VenueError: as `page`.
        """
        return await self._sent(weight, partial(self._look, request))

    async def _sent(self, weight: int, ask: Callable[[], Awaitable[Given]]) -> Given:
        failed = VenueError("never asked")
        async with self._turn:
            for number in range(SENDS):
                if number:
                    delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (number - 1)) * random.uniform(0.5, 1)  # noqa: S311
                    await asyncio.sleep(delay_s)
                await self._wait(weight)
                try:
                    return await ask()
                except BannedError:
                    raise
                except VenueError as error:
                    failed = error
                    if error.http_status is not None and error.http_status < 500 and error.http_status != 429:
                        break  # a request that is refused is refused again
        raise failed

    async def _look(self, request: str) -> bytes:
        status, value, told = await self._get(request)
        self._mind(status, request, told)
        return value

    async def newest_id(self, product_id: str) -> int:
        """The product's newest trade id by the venue's own word. The answer holds no trade that is missed: not kept.

        Raises:
            VenueError: as `page`.
            HistoryError: the answer does not tell it.
        """
        history = self._history
        assert isinstance(history, History), "candles have no ids"
        request = history.newest_request(product_id)
        async with self._turn:
            await self._wait(history.newest_weight)
            value = await self._look(request)
        return history.newest_id(product_id, value)

    async def _wait(self, weight: int) -> None:
        """The venue's distance between calls, and the end of a pause that it asked for, if it is near."""
        now_s = time.monotonic()
        pause_s = self._quiet_until_s - now_s
        if pause_s > LONGEST_PAUSE_S:
            raise VenueError(
                f"{self._history.venue} asked to be left alone for {pause_s:.0f} s more", retry_after_s=pause_s
            )
        await asyncio.sleep(max(0.0, pause_s, self._next_call_s - now_s))
        self._next_call_s = time.monotonic() + self._history.spacing_s(weight)

    async def _get(self, request: str) -> tuple[int, bytes, CIMultiDictProxy[str]]:
        assert self._session is not None, "the client is not open"
        try:
            async with self._session.get(URL(self._address + request, encoded=True), allow_redirects=False) as answer:
                return answer.status, await answer.read(), answer.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = f"{type(error).__name__}: {error}"
            log("no_answer", venue=self._history.venue, request=request, error=why)
            raise VenueError(f"no answer of {self._history.venue} to {request}: {why}") from error

    async def _ask(self, request: str, product_id: str, said: dict[str, str], topic: Topic) -> Answer:
        status, value, told = await self._get(request)
        headers = {
            "schema_version": SCHEMA_VERSION,
            "venue": self._history.venue,
            **said,
            "received_at": str(now_us()),
            "connection_id": self._connection_id,
            "origin": self._origin,
            "request": request,
            "http_status": str(status),
            "product_id": product_id,
        }
        await self._publish(topic, product_id, value, headers)
        self._mind(status, request, told)
        return Answer(value, headers, told.get(OLDER_HEADER))

    async def _publish(self, topic: Topic, product_id: str, value: bytes, headers: dict[str, str]) -> None:
        """Hand the answer to Kafka and wait until it has it, as long as that takes."""
        here = asyncio.Event()
        key = message_key(self._history.venue, product_id)
        encoded = [(name, text.encode()) for name, text in headers.items()]
        while not self._publisher.try_publish(topic, key, value, encoded, here.set):
            await asyncio.sleep(0.05)
        while not here.is_set():
            self._publisher.poll()
            await asyncio.sleep(ACKNOWLEDGED_POLL_S)

    def _mind(self, status: int, request: str, headers: CIMultiDictProxy[str]) -> None:
        """Do as a status asks."""
        if status == 200:
            return
        pause_s = quiet_s(status, headers.get("Retry-After"), datetime.now(UTC))
        if pause_s is not None:
            self._quiet_until_s = time.monotonic() + pause_s
        log("answer", venue=self._history.venue, request=request, http_status=status, quiet_for_s=pause_s)
        kind = BannedError if status in BANNED else VenueError
        raise kind(f"{self._history.venue} answered {status} to {request}", http_status=status, retry_after_s=pause_s)


def quiet_s(status: int, header: str | None, now: datetime) -> float | None:
    """How long an answer asks to be left alone; one that bans without saying for how long, ten minutes."""
    if status in BANNED:
        return BAN_S if header is None else retry_after_s(429, header, now)
    return retry_after_s(status, header, now)
