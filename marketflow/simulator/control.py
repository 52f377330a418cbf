"""Loopback control of a running simulator, and its truth to read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import msgspec
from aiohttp import web

from marketflow.simulator.faults import (
    CONNECTION_FAULTS,
    FEED_CHANNELS,
    REST,
    FaultBox,
    FaultKind,
    FaultRequest,
    refusal,
)
from marketflow.simulator.http_faults import json_answer
from marketflow.simulator.truth import Truth, TruthFile

READ_BYTES = 1024**2


class ProductRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /control/pause and /control/resume: one product, or all where none is named."""

    product: str | None = None


class Controlled(Protocol):
    """What control needs of the service."""

    truth: Truth
    faults: FaultBox
    products: tuple[str, ...]

    def pause(self, product: str | None = None) -> None:
        """Stop trading, all of it or one product."""

    def resume(self, product: str | None = None) -> None:
        """Trade again, from now."""

    def status(self) -> dict[str, object]:
        """Facts for people and tests."""

    def misbehave(self, fault: FaultKind, venue: str | None, seconds: float | None) -> None:
        """Cut or stall the connections of one venue's feed, or of all feeds."""


class Control:
    """Handlers under /control and /truth."""

    def __init__(self, service: Controlled) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """All paths that no venue has."""
        return [
            web.post("/control/pause", self.pause),
            web.post("/control/resume", self.resume),
            web.get("/control/status", self.status),
            web.post("/control/faults", self.order_fault),
            web.delete("/control/faults", self.clear_faults),
            web.get("/truth/trades", self.trades),
            web.get("/truth/prices", self.prices),
            web.get("/truth/vanished", self.vanished),
        ]

    async def pause(self, request: web.Request) -> web.Response:
        """No trade and no price from here on; heartbeats go on. With a body `{"product": …}` that product alone."""
        return await self._of_product(request, self._service.pause)

    async def resume(self, request: web.Request) -> web.Response:
        """Go on at the next id."""
        return await self._of_product(request, self._service.resume)

    async def _of_product(self, request: web.Request, act: Callable[[str | None], None]) -> web.Response:
        try:
            product = msgspec.json.decode(await request.read() or b"{}", type=ProductRequest).product
        except msgspec.DecodeError as error:
            return json_answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        if product is not None and product not in self._service.products:
            known = ", ".join(self._service.products)
            return json_answer({"error": f"product is one of {known}"}, HTTPStatus.BAD_REQUEST)
        act(product)
        return json_answer(self._service.status())

    async def status(self, _: web.Request) -> web.Response:
        """What is made, who listens, what was done wrong."""
        return json_answer(self._service.status())

    async def order_fault(self, request: web.Request) -> web.Response:
        """Take one fault, see faults.FaultRequest; what can never be done is refused with its reason."""
        try:
            fault = msgspec.json.decode(await request.read(), type=FaultRequest)
        except msgspec.DecodeError as error:
            return json_answer({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        if fault.product is not None and fault.product not in self._service.products:
            known = ", ".join(self._service.products)
            return json_answer({"error": f"product is one of {known}"}, HTTPStatus.BAD_REQUEST)
        reason = refusal(fault)
        if reason:
            return json_answer({"error": reason}, HTTPStatus.BAD_REQUEST)
        at_feed = fault.venue in (None, *FEED_CHANNELS) and fault.channel != REST
        if at_feed and fault.fault in CONNECTION_FAULTS:
            self._service.misbehave(fault.fault, fault.venue, fault.seconds)
        else:
            self._service.faults.add(fault, time.time_ns() // 1000)
        return json_answer({"accepted": fault})

    async def clear_faults(self, _: web.Request) -> web.Response:
        """Forget the faults that were ordered."""
        self._service.faults.clear()
        return json_answer(self._service.status())

    async def trades(self, request: web.Request) -> web.StreamResponse:
        """trades.ndjson as far as it is synced."""
        return await self._stream(request, self._service.truth.trades)

    async def prices(self, request: web.Request) -> web.StreamResponse:
        """prices.ndjson as far as it is synced."""
        return await self._stream(request, self._service.truth.prices)

    async def vanished(self, request: web.Request) -> web.StreamResponse:
        """vanished.ndjson as far as it is synced: the trades of the truth that nobody was told."""
        return await self._stream(request, self._service.truth.vanished)

    @staticmethod
    async def _stream(request: web.Request, file: TruthFile) -> web.StreamResponse:
        end = file.synced_bytes
        response = web.StreamResponse(headers={"content-type": "application/x-ndjson", "content-length": str(end)})
        await response.prepare(request)
        for start in range(0, end, READ_BYTES):
            await response.write(await asyncio.to_thread(file.read, start, min(end, start + READ_BYTES)))
        await response.write_eof()
        return response
