"""REST answers, good and bad: rate limits, server errors, stalls and cut connections."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

import msgspec
from aiohttp import web

from marketflow.simulator.faults import CONNECTION_FAULTS, HTTP_FAULTS, FaultBox, FaultKind, FaultRequest

STALL_S = 30.0
BODY_FAULTS = HTTP_FAULTS | CONNECTION_FAULTS
RATE_LIMIT_TEXT = (
    "You've exceeded the Rate Limit. Please visit the pricing page to subscribe to a plan with a higher one."
)


def json_answer(
    body: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An object as JSON."""
    return json_bytes(msgspec.json.encode(body), status, headers)


def json_bytes(
    body: bytes, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Bytes that are JSON already, or are meant to pretend so."""
    return web.Response(body=body, status=status, headers=headers, content_type="application/json", charset="utf-8")


def rate_limited(retry_after_s: int) -> web.Response:
    """A 429 as the aggregator sends it."""
    status = {"error_code": HTTPStatus.TOO_MANY_REQUESTS.value, "error_message": RATE_LIMIT_TEXT}
    return json_answer({"status": status}, HTTPStatus.TOO_MANY_REQUESTS, {"retry-after": str(retry_after_s)})


class HttpFaults:
    """Answers requests, in whatever way is due."""

    def __init__(self, box: FaultBox) -> None:
        self.box = box

    async def answer(
        self, request: web.Request, venue: str, body: Callable[[], bytes], headers: Mapping[str, str] | None = None
    ) -> web.Response:
        """The good answer, or the fault that hits this request; `body` is made only where it is sent."""
        product, now_us = request.match_info.get("product_id"), time.time_ns() // 1000
        # a request has one answer, so a second fault waits for the next
        hits = [] if self.box.is_idle else self.box.take(venue, BODY_FAULTS, now_us, product=product, most=1)
        for hit in hits:
            return await self._fault(request, hit, body)
        return json_bytes(body(), headers=headers)

    async def _fault(self, request: web.Request, hit: FaultRequest, body: Callable[[], bytes]) -> web.Response:
        if hit.fault is FaultKind.HTTP_429:
            return rate_limited(hit.retry_after)
        if hit.fault is FaultKind.HTTP_5XX:
            return json_answer({"status": 500, "error": "Internal Server Error"}, HTTPStatus.INTERNAL_SERVER_ERROR)
        if hit.fault is FaultKind.STALL:
            await asyncio.sleep(hit.seconds or STALL_S)
            return json_bytes(body())
        if request.transport is not None:
            request.transport.abort()
        return json_bytes(b"")
