"""Prices that are facts because a page told them: in the truth, synced, before the page is sent.

Where a venue gives a price no time of its own, the page's time is its time, so nothing but the page can make the fact.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import msgspec

from marketflow.simulator.history import PRICE_SCAN_BYTES
from marketflow.simulator.truth import SOURCE, TruthFile, TruthPrice, told_price_line

MILLISECOND_US = 1000
_OTHER_SOURCE = f'{{"source":"{SOURCE}"'.encode()
_decode = msgspec.json.Decoder(TruthPrice).decode


class PageFacts:
    """What pages told last, of each (source, asset, currency)."""

    def __init__(self, file: TruthFile, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Continue after what the file's tail says was told."""
        self._file = file
        self._now_ns = now_ns
        self._told_us: dict[tuple[str, str, str], int] = {}
        self._moments_us: dict[str, int] = {}
        for _, line in file.lines(file.line_start_before(file.written_bytes - PRICE_SCAN_BYTES)):
            if line.startswith(_OTHER_SOURCE):
                continue
            price = _decode(line)
            self._told_us[price.source, price.asset_id, price.vs_currency] = price.last_updated_us
            # a page after the restart is a later page, however the clock was set meanwhile
            earliest_us = price.last_updated_us + MILLISECOND_US
            self._moments_us[price.source] = max(self._moments_us.get(price.source, 0), earliest_us)

    def moment_us(self, source: str) -> int:
        """The time of a page made now, whole milliseconds, never back."""
        now_us = self._now_ns() // 1_000_000 * MILLISECOND_US
        self._moments_us[source] = max(self._moments_us.get(source, 0), now_us)
        return self._moments_us[source]

    def told_us(self, source: str, asset_id: str, vs_currency: str) -> int:
        """The time of the last fact that a page told; 0 before the first."""
        return self._told_us.get((source, asset_id, vs_currency), 0)

    async def tell(self, prices: Iterable[TruthPrice]) -> None:
        """Write those that are not there yet; all of them are safe when this returns."""
        lines = []
        for price in prices:
            key = price.source, price.asset_id, price.vs_currency
            if price.last_updated_us > self._told_us.get(key, 0):
                self._told_us[key] = price.last_updated_us
                lines.append(told_price_line(price))
        if lines:
            self._file.append(b"".join(lines))
        # also where another page has written these and its sync is still under way
        if self._file.written_bytes > self._file.synced_bytes:
            await asyncio.to_thread(self._file.sync)
