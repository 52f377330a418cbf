"""Turns the good messages of a venue's batch into what its wire carries."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from marketflow.simulator.bad_feed_messages import bad_copy
from marketflow.simulator.faults import CONNECTION_FAULTS, FEED_CHANNELS, FaultBox, FaultKind, FaultRequest
from marketflow.simulator.feed_messages import Fate, Stream, WireMessage
from marketflow.simulator.texts import SECOND_US

LATE_S = 3.0
# what decides whether, when and where the good message comes; all others are copies of it
PLACING = frozenset({FaultKind.DROP, FaultKind.VANISH, FaultKind.REORDER, FaultKind.LATE})


def _forget_nothing(_: str, __: int) -> None:
    """For a feed beside which there is no REST history."""


class FeedFaults:
    """One venue's faults. `forget` is told each trade (product, trade_id) that REST history must not tell either."""

    def __init__(
        self,
        venue: str,
        box: FaultBox,
        kinds: frozenset[FaultKind],
        forget: Callable[[str, int], None] = _forget_nothing,
    ) -> None:
        self._venue = venue
        self._box = box
        self._kinds = kinds
        self._forget = forget
        self._slots = count(1)
        self._swapped: dict[Stream, WireMessage] = {}  # held back until the next of the same stream is sent
        self._late: list[tuple[int, WireMessage]] = []  # held back until then
        self._connection_hits: list[FaultRequest] = []

    def apply(self, messages: list[WireMessage], now_us: int) -> list[WireMessage]:
        """Drops leave out, all else comes beside the good message, unless asked to replace it."""
        if self._box.is_idle and not self._swapped and not self._late:
            return messages
        wire = self._due(now_us)
        for message in messages:
            hits = self._hits(message, now_us)
            kinds = {hit.fault for hit in hits}
            if not kinds & {FaultKind.DROP, FaultKind.VANISH}:
                if FaultKind.REORDER in kinds and message.stream not in self._swapped:
                    wire.append(self._held(message))
                    self._swapped[message.stream] = wire[-1]
                    continue
                if FaultKind.LATE in kinds:
                    seconds = max(hit.seconds or LATE_S for hit in hits if hit.fault is FaultKind.LATE)
                    wire.append(self._held(message))
                    self._late.append((now_us + int(seconds * SECOND_US), wire[-1]))
                    continue
            wire.extend(self._placed(message, hits, kinds))
            if message.stream in self._swapped:
                wire.append(self._swapped.pop(message.stream)._replace(fate=Fate.RELEASED))
        return wire

    def take_connection_hits(self) -> list[FaultRequest]:
        """What chance did to the connections, since it was last asked."""
        hits, self._connection_hits = self._connection_hits, []
        return hits

    def _hits(self, message: WireMessage, now_us: int) -> list[FaultRequest]:
        if message.channel not in FEED_CHANNELS[self._venue]:
            return []  # a heartbeat
        hits = self._box.take(
            self._venue,
            self._kinds,
            now_us,
            product=message.product_id,
            channel=message.channel,
            trade_ids=message.trade_ids,
        )
        self._connection_hits += [hit for hit in hits if hit.fault in CONNECTION_FAULTS]
        return [hit for hit in hits if hit.fault not in CONNECTION_FAULTS]

    def _held(self, message: WireMessage) -> WireMessage:
        return message._replace(fate=Fate.HELD, slot=next(self._slots))

    def _due(self, now_us: int) -> list[WireMessage]:
        due = [message._replace(fate=Fate.RELEASED) for until_us, message in self._late if until_us <= now_us]
        self._late = [(until_us, message) for until_us, message in self._late if until_us > now_us]
        return due

    def _placed(self, message: WireMessage, hits: list[FaultRequest], kinds: set[FaultKind]) -> list[WireMessage]:
        """The good message or its loss, and its bad copies."""
        # the same bytes twice come one after the other
        in_order = sorted(kinds - PLACING, key=lambda kind: (kind is not FaultKind.DUPLICATE, kind))
        copies = [bad_copy(self._venue, kind, message) for kind in in_order]
        if FaultKind.VANISH in kinds:
            for trade_id in message.trade_ids:
                self._forget(message.product_id, trade_id)
        if kinds & {FaultKind.VANISH, FaultKind.DROP}:
            # no copy may tell of it: a lie that the good message does not contradict is one that nobody can find
            return [message._replace(fate=Fate.LOST)]
        if FaultKind.UNKNOWN_FIELD in kinds or any(
            hit.replace for hit in hits if hit.fault not in PLACING | {FaultKind.DUPLICATE}
        ):
            return [copy for copy in copies if copy.fate is not Fate.REPEATED]
        return [message, *copies]
