"""What gold covers of silver, read from both tables' own snapshot summaries (docs/decisions/0004-gold-marks.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from marketflow.lake import gold_hours, watermark
from marketflow.lake.snapshots import SnapshotSummary

Touched = dict[str, set[datetime]]
ANY = "*"
"""The product of hours that a gold table's commit names: it does not say which products."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The silver snapshot gold covers, and the complete_through its is_complete flags were written with."""

    silver_snapshot: int | None = None
    complete_through: datetime | None = None
    # of the second silver table, where there is one
    beside_snapshot: int | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened in silver since a mark: hours by product, or `everything` where that cannot be known."""

    newest: int | None
    touched: Touched = field(default_factory=dict)
    everything: bool = False

    @property
    def hours(self) -> set[datetime]:
        """Touched hours of all products."""
        return set().union(*self.touched.values()) if self.touched else set()


def of_gold(history: Iterable[SnapshotSummary], version: int = 1) -> Mark:
    """The mark of a gold table's history (newest first): the newest written one, since compaction writes none.

    What rows of another version cover is not covered: they lack what this one writes (docs/decisions/0012).
    """
    for snapshot in history:
        if "hours" in snapshot.properties:
            if int(snapshot.properties.get("version", 1)) != version:
                return Mark()
            covered, beside = (snapshot.properties.get(name) for name in ("silver_snapshot", "beside_snapshot"))
            through = snapshot.properties.get("complete_through")
            return Mark(
                int(covered) if covered else None,
                datetime.fromisoformat(through) if through else None,
                int(beside) if beside else None,
            )
    return Mark()


def _told(snapshot: SnapshotSummary) -> Mapping[str, Iterable[datetime]] | None:
    """What a commit says it touched: silver's hours by product, gold's (hours, and days by their midnight) of ANY."""
    if watermark.TOUCHED in snapshot.properties:
        return watermark.decode_touched(snapshot.properties[watermark.TOUCHED])
    if "hours" in snapshot.properties:
        parts = (snapshot.properties.get(name, "[]") for name in ("hours", "days"))
        return {ANY: [hour for part in parts for hour in gold_hours.from_json(part)]}
    return None


def changes_since(history: Iterable[SnapshotSummary], covered: int | None) -> Changes:
    """Union of what the snapshots after `covered` of silver, or of the gold table read, touched (newest first).

    Everything is changed where nothing is covered yet, where the covered snapshot has left the history, and where a
    snapshot that is no compaction does not say what it touched (rows deleted by hand): gold can be rebuilt, so the
    answer to "unknown" is "all".
    """
    newest: int | None = None
    touched: Touched = {}
    for snapshot in history:
        newest = newest or snapshot.snapshot_id
        if snapshot.snapshot_id == covered:
            return Changes(newest, touched)
        if snapshot.operation == "replace":
            continue
        told = _told(snapshot)
        if told is None:
            break
        for product, hours in told.items():
            touched.setdefault(product, set()).update(hours)
    return Changes(newest, everything=newest is not None)
