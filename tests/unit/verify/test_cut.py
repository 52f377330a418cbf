"""The cut is the slowest layer's mark less a margin, and says aloud when it cannot be trusted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from marketflow.verify import cut
from marketflow.verify.cut import Published
from marketflow.verify.report import Report
from marketflow.verify.sources import LakeTable, Snapshot

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def test_the_cut_is_five_seconds_before_the_smallest_mark() -> None:
    report = Report("sim")
    marks = {"bronze.trades_raw": NOW - MINUTE, "gold.bars": NOW - 5 * MINUTE}
    assert cut.take(report, marks, now=NOW) == NOW - 5 * MINUTE - timedelta(seconds=5)
    assert report.clean


def test_a_cut_older_than_ten_minutes_names_the_slowest_table() -> None:
    report = Report("sim")
    cut.take(report, {"bronze.trades_raw": NOW, "gold.bars": NOW - 10 * MINUTE}, now=NOW)
    assert [(one.table, one.kind) for one in report.problems] == [("gold.bars", "too old")]


def test_a_table_that_never_said_how_far_it_is_complete_is_a_problem() -> None:
    report = Report("sim")
    assert cut.take(report, {"bronze.trades_raw": None}, now=NOW) is None
    assert [(one.table, one.kind) for one in report.problems] == [("bronze.trades_raw", "no complete_through")]


def snapshot(number: int, through: datetime | None = None) -> Snapshot:
    properties = {"hours": "[]", "complete_through": through.isoformat()} if through else {}
    return Snapshot(number, 0, properties)


def test_publication_is_as_complete_as_gold_when_nothing_is_left_to_publish() -> None:
    # snapshot 3 is a compaction: nothing to publish
    gold = LakeTable("gold.bars", "", (snapshot(3), snapshot(2, NOW - MINUTE), snapshot(1, NOW - 9 * MINUTE)))
    assert cut.published_complete_through(gold, NOW, Published(2, None)) == NOW
    assert cut.published_complete_through(gold, NOW, Published(1, None)) == NOW - 9 * MINUTE
    assert cut.published_complete_through(gold, NOW, None) is None
