"""What gold covers of silver, told from snapshot summaries alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from marketflow.lake import gold_hours
from marketflow.lake.gold_marks import Changes, Mark, changes_since, of_gold
from marketflow.lake.snapshots import SnapshotSummary

NINE = datetime(2026, 3, 10, 9, tzinfo=UTC)
TEN, ELEVEN, TWELVE = (NINE + timedelta(hours=i) for i in (1, 2, 3))


def snapshot(snapshot_id: int, operation: str = "append", **properties: str) -> SnapshotSummary:
    return SnapshotSummary(snapshot_id, snapshot_id - 1 or None, NINE, operation, properties)


def touching(snapshot_id: int, **products: list[datetime]) -> SnapshotSummary:
    hours = {name.replace("_", "-"): [hour.isoformat() for hour in hours] for name, hours in products.items()}
    return snapshot(snapshot_id, touched=json.dumps(hours))


def test_hours_touched_after_the_covered_snapshot_are_joined_per_product() -> None:
    history = [touching(4, BTC_USD=[TEN]), touching(3, BTC_USD=[NINE], ETH_USD=[TEN]), touching(2, BTC_USD=[TWELVE])]
    assert changes_since(history, 2) == Changes(4, {"BTC-USD": {NINE, TEN}, "ETH-USD": {TEN}})


def test_hours_and_days_that_a_gold_table_names_are_of_no_product() -> None:
    named = snapshot(3, "overwrite", hours=json.dumps([TEN.isoformat()]), days=json.dumps([NINE.isoformat()]))
    mark_alone = snapshot(4, hours="[]")
    assert changes_since([mark_alone, named, touching(2)], 2) == Changes(4, {"*": {NINE, TEN}})


def test_a_range_of_hours_means_every_hour_in_it() -> None:
    text = json.dumps({"BTC-USD": [NINE.isoformat(), TWELVE.isoformat()], "range": True})
    assert changes_since([snapshot(2, touched=text), touching(1)], 1).touched["BTC-USD"] == {NINE, TEN, ELEVEN, TWELVE}


def test_nothing_is_changed_where_the_newest_snapshot_is_covered() -> None:
    assert changes_since([touching(2, BTC_USD=[TEN])], 2) == Changes(2)
    assert changes_since([], None) == Changes(None)


def test_everything_is_changed_where_nothing_is_covered_or_the_covered_snapshot_has_expired() -> None:
    history = [touching(9, BTC_USD=[TEN]), touching(8, BTC_USD=[TEN])]
    assert changes_since(history, None).everything
    assert changes_since(history, 3).everything


def test_rows_deleted_by_hand_change_everything_and_a_compaction_changes_nothing() -> None:
    covered = touching(1, BTC_USD=[NINE])
    assert changes_since([snapshot(2, "delete"), covered], 1).everything
    assert changes_since([snapshot(2, "replace"), covered], 1) == Changes(2)


def test_the_mark_is_the_newest_written_one_whatever_compaction_did_since() -> None:
    marked = snapshot(5, "overwrite", hours="[]", silver_snapshot="77", complete_through=TEN.isoformat())
    assert of_gold([snapshot(6, "replace"), marked, snapshot(4, hours="[]", silver_snapshot="70")]) == Mark(77, TEN)
    assert of_gold([snapshot(1, "overwrite", hours="[]")]) == Mark()


@pytest.mark.parametrize(("start", "end", "hours"), [
    (NINE, NINE, []),
    (NINE, TEN, [NINE]),
    (NINE + timedelta(minutes=59), TEN + timedelta(microseconds=1), [NINE, TEN]),
])  # fmt: skip
def test_hours_between_are_those_that_overlap(start: datetime, end: datetime, hours: list[datetime]) -> None:
    assert gold_hours.between(start, end) == hours


def test_runs_join_neighbours_and_break_at_the_longest() -> None:
    joined = gold_hours.runs([TWELVE, NINE, TEN])
    assert [(run.start, run.end) for run in joined] == [(NINE, ELEVEN), (TWELVE, TWELVE + timedelta(hours=1))]
    broken = gold_hours.runs([NINE, TEN, ELEVEN], longest=timedelta(hours=2))
    assert [(run.start, run.end) for run in broken] == [(NINE, ELEVEN), (ELEVEN, TWELVE)]
