"""Where trade ids are missing. Pure: it is told what arrived and when, and says what that means.

A venue that numbers its trades one by one per product tells on itself: a jump is a hole. Rules:

- The first id of a product is where its story begins; nothing is missing before it.
- An id more than one above the highest seen opens a hole. Its cause is why the last connection ended (`reconnect`,
  `backpressure`, `killed`) until the product has been heard once on the new one, and `drop` after that.
- An id at or below the highest seen is a duplicate, or fills a hole that is still known. It never opens one.
- A heartbeat says the last trade's id. When that trade is still not here `grace_s` later, it is missing: this is how
  the loss of the last trade before a silence is seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Cause = Literal["drop", "reconnect", "backpressure", "killed", "unknown"]

# Holes kept in memory per product so that late trades can close them; older ones live in the ledger alone.
MAX_REMEMBERED_HOLES = 10_000
# No late or repeated trade is this far behind: an id further back is a venue that began to count anew, or a lie.
LONGEST_WAY_BACK = 100_000


@dataclass(frozen=True, slots=True)
class Gap:
    """Trade ids that did not arrive, first and last inclusive."""

    venue: str
    product_id: str
    first_missing_id: int
    last_missing_id: int
    cause: Cause

    @property
    def missing(self) -> int:
        """How many ids."""
        return self.last_missing_id - self.first_missing_id + 1


@dataclass(frozen=True, slots=True)
class Filled:
    """A trade that arrived after its hole was reported."""

    venue: str
    product_id: str
    trade_id: int


Event = Gap | Filled


@dataclass(slots=True)
class _Product:
    """What is known of one product. `holes` are [first, last] pairs, ascending."""

    last_id: int | None = None
    cause: Cause | None = None
    announced_id: int = 0
    announced_at_s: float = 0.0
    holes: list[list[int]] = field(default_factory=list)


class GapTracker:
    """One venue's products. `known` is the last published id of each, `cause` why there may be a hole after it."""

    def __init__(
        self, venue: str, known: Mapping[str, int] | None = None, *, cause: Cause = "killed", grace_s: float = 5.0
    ) -> None:
        self._venue = venue
        self.grace_s = grace_s
        self._products = {product: _Product(last_id=last_id, cause=cause) for product, last_id in (known or {}).items()}

    def last_id(self, product_id: str) -> int | None:
        """The highest id seen or given up on."""
        known = self._products.get(product_id)
        return None if known is None else known.last_id

    def went_back(self, product_id: str, trade_id: int) -> int | None:
        """The least id that a late trade could have, where this one lies below it; else None."""
        known = self._products.get(product_id)
        if known is None or known.last_id is None or trade_id >= known.last_id - LONGEST_WAY_BACK:
            return None
        return known.last_id - LONGEST_WAY_BACK

    def disconnected(self, cause: Cause) -> None:
        """The connection ended: what is missing when each product is next heard has this cause."""
        for known in self._products.values():
            known.cause = known.cause or cause
            known.announced_id = 0

    def trade(self, product_id: str, trade_id: int) -> Event | None:
        """A trade arrived."""
        known = self._products.get(product_id)
        if known is None:
            known = self._products[product_id] = _Product()
        last_id = known.last_id
        if last_id is None or trade_id == last_id + 1:
            known.last_id = trade_id
            known.cause = None
            return None
        if trade_id <= last_id:
            return self._filled(product_id, known, trade_id)
        gap = self._open(product_id, known, trade_id - 1)
        known.last_id = trade_id
        return gap

    def heartbeat(self, product_id: str, last_trade_id: int, now_s: float) -> None:
        """The venue says which trade was the last. Ask `overdue` whether it is here."""
        known = self._products.get(product_id)
        if known is None:
            known = self._products[product_id] = _Product()
        if known.last_id is None:
            known.last_id = last_trade_id
        elif last_trade_id == known.last_id:
            known.cause = None  # nothing is missing so far, whatever ended the last connection
        elif last_trade_id > known.last_id and known.announced_id <= known.last_id:
            known.announced_id, known.announced_at_s = last_trade_id, now_s

    def overdue(self, now_s: float) -> list[Gap]:
        """Holes up to trades that heartbeats announced at least `grace_s` ago and that are still not here."""
        gaps = []
        for product_id, known in self._products.items():
            assert known.last_id is not None
            if known.announced_id > known.last_id and now_s - known.announced_at_s >= self.grace_s:
                gaps.append(self._open(product_id, known, known.announced_id))
                known.last_id = known.announced_id
        return gaps

    def _open(self, product_id: str, known: _Product, last_missing_id: int) -> Gap:
        assert known.last_id is not None
        gap = Gap(self._venue, product_id, known.last_id + 1, last_missing_id, known.cause or "drop")
        known.cause = None
        known.holes.append([gap.first_missing_id, gap.last_missing_id])
        del known.holes[:-MAX_REMEMBERED_HOLES]
        return gap

    def _filled(self, product_id: str, known: _Product, trade_id: int) -> Filled | None:
        if trade_id == known.last_id:
            known.cause = None  # the last trade again, as after a reconnect: nothing is missing before it
        at = bisect_right(known.holes, trade_id, key=lambda hole: hole[0]) - 1
        if at < 0 or known.holes[at][1] < trade_id:
            return None
        first, last = known.holes[at]
        known.holes[at : at + 1] = [
            hole for hole in ([first, trade_id - 1], [trade_id + 1, last]) if hole[0] <= hole[1]
        ]
        return Filled(self._venue, product_id, trade_id)


def holes_between(ids: Iterable[int]) -> list[tuple[int, int]]:
    """The ranges missing between the smallest and the largest of `ids`, in order."""
    ordered = sorted(set(ids))
    return [(before + 1, after - 1) for before, after in pairwise(ordered) if after > before + 1]
