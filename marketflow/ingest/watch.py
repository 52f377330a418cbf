"""What runs beside a poller's calls: delivery reports, the disk, and what its metrics say between two polls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from marketflow.ingest.disk import DiskGuard
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.outbox import Outbox
from marketflow.ingest.publisher import KafkaPublisher

EVERY_S = 0.25


async def watch(
    publisher: KafkaPublisher, disk: DiskGuard, metrics: Metrics, stop: Callable[[], None], outbox: Outbox | None = None
) -> None:
    """For ever: take delivery reports, stop the poller when the disk is short, set the metrics of what waits."""
    while True:
        metrics.pulse.beat()
        publisher.poll()
        if disk.is_short():
            stop()
        metrics.in_flight.set(publisher.in_flight)
        if outbox is not None:
            metrics.outbox.set(len(outbox))
        await asyncio.sleep(EVERY_S)
