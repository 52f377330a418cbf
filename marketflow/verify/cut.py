"""One moment for all layers: what the platform must have taken in by then is judged, what came later is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from marketflow.verify.report import Report
from marketflow.verify.sources import LakeTable, Warehouse

MARGIN = timedelta(seconds=5)
"""Off the smallest complete_through: clocks of several processes and Kafka's own delay lie inside it."""
TRANSPORT = timedelta(seconds=5)
"""From the market to Kafka: a trade younger than this at the cut may still be on its way."""
OLDEST = timedelta(minutes=10)
MICROSECOND = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """µs since the epoch, exact."""
    return (moment - EPOCH) // MICROSECOND


def moment(microseconds_since_epoch: int) -> datetime:
    """The aware time of a number of µs."""
    return EPOCH + microseconds_since_epoch * MICROSECOND


@dataclass(frozen=True, slots=True)
class Published:
    """What publication says of one gold table: the gold snapshot that Postgres is true to."""

    snapshot_id: int
    published_through: datetime | None


def complete_through(warehouse: Warehouse, tables: tuple[str, ...]) -> dict[str, datetime | None]:
    """Each table's mark as its writer left it; None where there is none yet."""
    marks = dict(warehouse.rows("select table_name, complete_through from ops.layer_mark"))
    return {name: marks.get(name) for name in tables}


def published(warehouse: Warehouse) -> dict[str, Published]:
    """The state of publication of each gold table that has been published."""
    query = "select table_name, last_snapshot_id, published_through from ops.publish_audit"
    return {name: Published(snapshot_id, through) for name, snapshot_id, through in warehouse.rows(query)}


def published_complete_through(gold: LakeTable, mark: datetime | None, state: Published | None) -> datetime | None:
    """Gold's own mark where nothing is left to publish, else what the published snapshot covered."""
    if state is None:
        return None
    after = False
    for snapshot in gold.snapshots:
        after = after or snapshot.snapshot_id == state.snapshot_id
        if not after and "hours" in snapshot.properties:
            mark = None
        elif after and mark is None and "complete_through" in snapshot.properties:
            return stated(snapshot.properties)
    return mark


def stated(properties: Mapping[str, str]) -> datetime | None:
    """The complete_through that a gold commit was written with."""
    text = properties.get("complete_through")
    if not text or text == "null":
        return None
    found = datetime.fromisoformat(text.strip('"'))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def take(report: Report, marks: Mapping[str, datetime | None], *, now: datetime) -> datetime | None:
    """The cut: the smallest mark less the margin. A layer without a mark, or a cut too old, is a problem by name."""
    report.complete_through = dict(marks)
    for name, mark in marks.items():
        if mark is None:
            report.problem("cut", name, "all", "no complete_through", f"{name} has never said how far it is complete")
    known = {name: mark for name, mark in marks.items() if mark is not None}
    if not known:
        return None
    slowest = min(known, key=lambda name: known[name])
    cut = known[slowest] - MARGIN
    report.cut = cut
    if now - cut > OLDEST:
        age = (now - cut).total_seconds()
        report.problem(
            "cut",
            slowest,
            "all",
            "too old",
            f"complete through {known[slowest].isoformat()}: the cut is {age:.0f} s old",
        )
    return cut
