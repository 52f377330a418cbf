"""REST answers, good and bad: rate limits, bans, server errors, stalls, slow bodies and cut connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from marketflow.simulator import page_faults
from marketflow.simulator.faults import (
    ADVANCED,
    BINANCE,
    COINBASE,
    COINCAP,
    COINGECKO,
    CRYPTOCOMPARE,
    HTTP_FAULTS,
    FaultBox,
    FaultKind,
    FaultRequest,
    impossible,
)
from marketflow.simulator.page_faults import Page

STALL_S = 30.0
SLOW_BODY_S = 25.0  # longer than the 20 s that a client gives a whole answer
SLOW_STEP_S = 0.25
BANNED = 418
ANSWER_FAULTS = HTTP_FAULTS | {FaultKind.DISCONNECT, FaultKind.STALL}
RATE_LIMIT_TEXT = (
    "You've exceeded the Rate Limit. Please visit the pricing page to subscribe to a plan with a higher one."
)
# how each venue says that it is asked too often, and that it has failed
TOO_MANY: dict[str, object] = {
    COINBASE: {"message": "Public rate limit exceeded"},
    ADVANCED: {"error": "RESOURCE_EXHAUSTED", "code": 8, "message": "too many requests", "details": []},
    BINANCE: {
        "code": -1003,
        "msg": "Too much request weight used; current limit is 6000 request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API.",
    },
    COINGECKO: {"status": {"error_code": HTTPStatus.TOO_MANY_REQUESTS.value, "error_message": RATE_LIMIT_TEXT}},
    COINCAP: {"error": "You exceeded your request limit"},
    CRYPTOCOMPARE: {
        "Response": "Error",
        "Message": "You are over your rate limit please upgrade your account!",
        "HasWarning": False,
        "Type": 99,
        "RateLimit": {
            "calls_made": {"second": 1, "minute": 301, "hour": 301, "day": 10001, "month": 20000},
            "max_calls": {"second": 20, "minute": 300, "hour": 3000, "day": 10000, "month": 75000},
        },
        "Data": {},
    },
}
FAILED: dict[str, object] = {
    COINBASE: {"message": "Internal server error"},
    ADVANCED: {"error": "INTERNAL", "code": 13, "message": "internal error", "details": []},
    BINANCE: {"code": -1000, "msg": "An unknown error occurred while processing the request."},
    COINGECKO: {"status": 500, "error": "Internal Server Error"},
    COINCAP: {"error": "Internal server error"},
    CRYPTOCOMPARE: {
        "Response": "Error",
        "Message": "Internal server error",
        "HasWarning": False,
        "Type": 1,
        "RateLimit": {},
        "Data": {},
    },
}
# makes the page that is told; true where its prices are to be those of another currency
MakePage = Callable[[bool], Awaitable[Page]]


def json_answer(
    body: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An object as JSON."""
    return json_bytes(msgspec.json.encode(body), status, headers)


def json_bytes(body: bytes, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> web.Response:
    """Bytes that are JSON already, or are meant to pretend so."""
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def rate_limited(venue: str, retry_after_s: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """A 429 as the venue sends it."""
    return json_answer(
        TOO_MANY[venue], HTTPStatus.TOO_MANY_REQUESTS, {**(headers or {}), "retry-after": str(retry_after_s)}
    )


def _banned(retry_after_s: int) -> web.Response:
    until_ms = time.time_ns() // 1_000_000 + retry_after_s * 1000
    text = f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams to avoid bans."
    body = msgspec.json.encode({"code": -1003, "msg": text})
    return json_bytes(body, BANNED, {"retry-after": str(retry_after_s)})


def known(page: Page) -> MakePage:
    """A page that is there already and has no currency."""

    async def make(_: bool) -> Page:
        return page

    return make


class HttpFaults:
    """Answers requests, in whatever way is due."""

    def __init__(self, box: FaultBox) -> None:
        self.box = box

    async def answer(
        self,
        request: web.Request,
        venue: str,
        make: MakePage,
        *,
        headers: Mapping[str, str] | None = None,
        product: str | None = None,
        has_currency: bool = False,
    ) -> web.StreamResponse:
        """The good answer, or the fault that hits this request; the page is made only where it is sent."""
        hits: list[FaultRequest] = []
        if not self.box.is_idle:
            # a request has one answer, so a second fault waits for the next
            kinds = frozenset(kind for kind in ANSWER_FAULTS if not impossible(kind, venue))
            hits = self.box.take(venue, kinds, time.time_ns() // 1000, product=product, most=1)
        kind = hits[0].fault if hits else None
        if kind is FaultKind.HTTP_429:
            return rate_limited(venue, hits[0].retry_after, headers)
        if kind is FaultKind.HTTP_418:
            return _banned(hits[0].retry_after)
        if kind is FaultKind.HTTP_5XX:
            return json_answer(FAILED[venue], HTTPStatus.INTERNAL_SERVER_ERROR)
        if kind is FaultKind.DISCONNECT:
            if request.transport is not None:
                request.transport.abort()
            return json_bytes(b"")
        if kind is FaultKind.STALL:
            await asyncio.sleep(hits[0].seconds or STALL_S)
        body = await self._body(venue, make, product, has_currency=has_currency)
        if kind is FaultKind.SLOW_BODY:
            return await _trickle(request, body, hits[0].seconds or SLOW_BODY_S, headers)
        return json_bytes(body, headers=headers)

    async def _body(self, venue: str, make: MakePage, product: str | None, *, has_currency: bool) -> bytes:
        """The page with whatever is wrong with it."""
        if self.box.is_idle:
            return (await make(False)).body
        switch = frozenset({FaultKind.CURRENCY_SWITCH}) if has_currency else frozenset()
        now_us = time.time_ns() // 1000
        page = await make(bool(page_faults.take(self.box, venue, switch, now_us, product)))
        hits = page_faults.take(self.box, venue, page_faults.kinds_of(page, venue), now_us, product)
        return page_faults.spoiled(page, hits, FAILED[venue], now_us) if hits else page.body


async def _trickle(
    request: web.Request, body: bytes, seconds: float, headers: Mapping[str, str] | None
) -> web.StreamResponse:
    """The whole body, a piece at a time, over so many seconds."""
    response = web.StreamResponse(
        headers={**(headers or {}), "content-type": "application/json", "content-length": str(len(body))}
    )
    await response.prepare(request)
    steps = max(1, round(seconds / SLOW_STEP_S))
    for step in range(steps):
        await response.write(body[len(body) * step // steps : len(body) * (step + 1) // steps])
        await asyncio.sleep(seconds / steps)
    await response.write_eof()
    return response
