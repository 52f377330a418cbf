"""A venue's REST API on loopback that answers what a test tells it to, for pollers; it remembers what it was asked."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

# instead of a status
HALF, CUT, SLOW = "half", "cut", "slow"
SLOW_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What to answer: a status, or one of the ways not to."""

    status: int | str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    at_s: float
    path: str
    headers: dict[str, str]
    answered: Answer


@dataclass
class PolledVenue:
    """`script` is answered first, one a request; then `good` makes every answer."""

    url: str
    good: Callable[[], Answer]
    script: deque[Answer]
    asked: list[Asked] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        answer = self.script.popleft() if self.script else self.good()
        headers = {name.lower(): text for name, text in request.headers.items()}
        self.asked.append(Asked(time.time(), request.path_qs, headers, answer))
        if isinstance(answer.status, int):
            return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
        assert request.transport is not None
        if answer.status == CUT:
            request.transport.abort()
            return web.Response()
        response = web.StreamResponse(headers={"Content-Length": str(len(answer.body))})
        await response.prepare(request)
        await response.write(answer.body[:-1])
        if answer.status == SLOW:
            await asyncio.sleep(SLOW_S)
        request.transport.close()
        return response


@contextmanager
def polled_venue(good: Callable[[], Answer], script: list[Answer]) -> Iterator[PolledVenue]:
    """The venue on a free port, in a thread of its own."""
    loop = asyncio.new_event_loop()
    made = PolledVenue("", good, deque(script))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = site.name

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
