"""What becomes of the ids that a feed sees: holes are told to the ledger and to people, and closed when they fill."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from marketflow.ingest.gaps import Cause, Event, Filled, Gap, GapTracker, holes_between
from marketflow.ingest.healer import Healer
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.outbox import Outbox, Write
from marketflow.ingest.publisher import now_us
from marketflow.ingest.tail import Tail
from marketflow.venues.seen import Seen
from marketflow.warehouse import ledger


class HoleKeeper:
    """One venue's tracker, with what it says written to ops.trade_gap through the outbox."""

    def __init__(self, venue: str, tracker: GapTracker, outbox: Outbox, metrics: Metrics) -> None:
        self._venue = venue
        self._tracker = tracker
        self._outbox = outbox
        self._metrics = metrics
        self._filled: dict[str, list[int]] = {}
        self._connection_id = ""
        self._healer: Healer | None = None
        # when each product was last heard, µs: a hole lies between two such times
        self._heard_us: dict[str, int] = {}

    def heal_with(self, healer: Healer) -> None:
        """From now on holes are healed."""
        self._healer = healer

    def disconnected(self, cause: Cause) -> None:
        """The connection ended."""
        self._tracker.disconnected(cause)

    def least(self, seen: Seen) -> bytes | None:
        """Header least_trade_id where a trade's id lies far below what was told before: no venue counts like that."""
        for product_id, trade_id in seen.trades:
            least = self._tracker.went_back(product_id, trade_id)
            if least is not None:
                self._metrics.went_back.inc()
                log("trade_id_went_back", product_id=product_id, trade_id=trade_id, least_trade_id=least)
                return f"{product_id}|{least}".encode()
        return None

    def seen(self, seen: Seen, received_us: int, connection_id: str) -> None:
        """A message was handed to Kafka."""
        self._connection_id = connection_id
        for product_id, trade_id in seen.trades:
            event = self._tracker.trade(product_id, trade_id)
            if event is not None:
                self._report(event, received_us)
            self._heard_us[product_id] = received_us
        if seen.announced is not None:
            # Stream time, not the clock: while the queue is long, the trade may be in it too.
            self._tracker.heartbeat(*seen.announced, received_us / 1e6)
            for gap in self._tracker.overdue(received_us / 1e6):
                self._report(gap, received_us)

    async def announced(self, product_id: str, newest: int, behind: Callable[[], bool]) -> None:
        """The venue says by REST which trade was the last: if it is not here after the grace, it is missing.

        Where messages wait by then, it may be among them: nobody can say, and the next look will.
        """
        last = self._tracker.last_id(product_id)
        if last is None or newest <= last:
            return
        self._tracker.heartbeat(product_id, newest, time.time())
        await asyncio.sleep(self._tracker.grace_s)
        if not behind():
            for gap in self._tracker.overdue(time.time()):
                self._report(gap, now_us())

    def published(self, product_id: str, ids: list[int]) -> None:
        """The healer brought these ids, and told the ledger."""
        for trade_id in ids:
            self._tracker.trade(product_id, trade_id)
        self._metrics.healed.inc(len(ids))

    def found(self, tail: Tail) -> None:
        """Holes that an earlier process may not have told of: those in Kafka's tail."""
        for product_id, holes in tail.holes.items():
            for first, last in holes:
                gap = Gap(self._venue, product_id, first, last, "unknown")
                self._outbox.add(open_write(gap, datetime.now(UTC), None))
                self._heal(gap, None)
        for product_id, ids in tail.brought.items():
            self._filled.setdefault(product_id, []).extend(ids)
            for trade_id in ids:
                if self._healer is not None:
                    self._healer.filled(product_id, trade_id)
        self.close_filled()

    def _heal(self, gap: Gap, heard_us: int | None) -> None:
        if self._healer is not None:
            self._healer.add(gap, self._heard_us.get(gap.product_id), heard_us)

    def _report(self, event: Event, heard_us: int) -> None:
        if isinstance(event, Filled):
            self._metrics.filled.inc()
            self._filled.setdefault(event.product_id, []).append(event.trade_id)
            if self._healer is not None:
                self._healer.filled(event.product_id, event.trade_id)
            return
        self._metrics.gaps.labels(event.venue, event.cause).inc()
        self._metrics.missing.inc(event.missing)
        log("gap", **_shown(event))
        self._outbox.add(open_write(event, datetime.now(UTC), self._connection_id))
        self._heal(event, heard_us)

    def close_filled(self) -> None:
        """Tell the ledger which missing trades of this batch arrived after all, as ranges."""
        for product_id, ids in self._filled.items():
            for first, last in ranges(ids) if ids else ():
                log("gap_filled", product_id=product_id, first_id=first, last_id=last)
                self._outbox.add(
                    partial(
                        ledger.close_hole,
                        venue=self._venue,
                        product_id=product_id,
                        first_id=first,
                        last_id=last,
                        at=datetime.now(UTC),
                    )
                )
        self._filled.clear()


def open_write(gap: Gap, detected_at: datetime, connection_id: str | None) -> Write:
    """The ledger write that opens a hole."""
    return partial(
        ledger.open_hole,
        venue=gap.venue,
        product_id=gap.product_id,
        first_missing_id=gap.first_missing_id,
        last_missing_id=gap.last_missing_id,
        cause=gap.cause,
        detected_at=detected_at,
        connection_id=connection_id or None,
    )


def ranges(ids: list[int]) -> list[tuple[int, int]]:
    """Ids as contiguous ranges, first and last inclusive."""
    ordered = sorted(set(ids))
    edges = holes_between(ordered)
    firsts = [ordered[0], *(last + 1 for _, last in edges)]
    lasts = [*(first - 1 for first, _ in edges), ordered[-1]]
    return list(zip(firsts, lasts, strict=True))


def _shown(gap: Gap) -> dict[str, object]:
    return {
        "product_id": gap.product_id,
        "first_missing_id": gap.first_missing_id,
        "last_missing_id": gap.last_missing_id,
        "missing": gap.missing,
        "cause": gap.cause,
    }
