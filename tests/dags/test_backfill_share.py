"""Which hours a backfill's job takes along, and when what it left counts; tests/integration has a real scheduler."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from marketflow_airflow import backfill_share

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def run_id(hour, kind="backfill", ending="aBcD1234"):
    return f"{kind}__2026-11-10T{hour:02}:00:00+00:00__2026-11-10T{hour:02}:00:00__{ending}"


def task(run, states=None, *, try_number=1, max_tries=4):
    def get_task_states(dag_id, task_ids):
        assert (dag_id, task_ids) == ("gold_bars", ["rewrite_hours"])
        return {name: {"rewrite_hours": state} for name, state in (states or {}).items()}

    return SimpleNamespace(
        dag_id="gold_bars",
        task_id="rewrite_hours",
        run_id=run,
        get_task_states=get_task_states,
        try_number=try_number,
        max_tries=max_tries,
    )


def test_only_backfilled_runs_whose_same_task_waits_for_the_slot_are_taken_along():
    states = {
        run_id(3): "running",  # itself
        run_id(5): "scheduled",
        run_id(4): "scheduled",
        run_id(6): None,  # its sensor has not passed
        run_id(7): "up_for_retry",
        run_id(8): "success",
        run_id(9, kind="scheduled"): "scheduled",
        "manual__2026-11-10T10:00:00+00:00": "scheduled",
        "backfill__by hand": "scheduled",
        "backfill__2026-11-10T11:00:00+00:00__eleven__aBcD1234": "scheduled",
    }
    assert list(backfill_share.waiting(task(run_id(3), states), "hour", 4).items()) == [
        (run_id(4), datetime(2026, 11, 10, 4, tzinfo=UTC)),
        (run_id(5), datetime(2026, 11, 10, 5, tzinfo=UTC)),
    ]
    days = {"backfill__2026-11-11T00:00:00+00:00__2026-11-10__aBcD1234": "scheduled"}
    assert list(backfill_share.waiting(task(run_id(3), days), "day", 4).values()) == [
        datetime(2026, 11, 10, tzinfo=UTC)
    ]


@pytest.mark.parametrize(
    ("try_number", "max_tries", "shares"),
    [(1, 4, True), (2, 4, False), (5, 4, False), (6, 9, True), (7, 9, False)],
    ids=["first", "second", "last", "first since it was cleared", "second since then"],
)
def test_another_try_is_of_its_own_hour_alone(try_number, max_tries, shares):
    """Five tries; clearing a task that has had them all gives it five more."""
    ti = task(run_id(3), {run_id(4): "scheduled"}, try_number=try_number, max_tries=max_tries)
    assert bool(backfill_share.waiting(ti, "hour", 4)) is shares


def test_the_schedule_does_not_wait_for_more_than_nine_hours_of_a_backfill():
    states = {run_id(hour): "scheduled" for hour in range(24)}
    found = backfill_share.waiting(task(run_id(0), states), "hour", 4)
    assert [start.hour for start in found.values()] == [1, 2, 3, 4, 5, 6, 7, 8], "with its own nine"


@pytest.mark.parametrize(
    ("started", "counts"),
    [(NOON - timedelta(seconds=1), True), (NOON, False), (NOON + timedelta(minutes=5), False)],
    ids=["before the job", "with it", "after it, being cleared"],
)
def test_what_was_left_counts_once_and_only_for_a_run_that_started_before_the_job(tmp_path, started, counts):
    summary = [{"table": "gold.bars", "hours": ["2026-11-10T03:00:00+00:00", "2026-11-10T04:00:00+00:00"]}]
    backfill_share.leave(tmp_path / "done", task(run_id(3)), [run_id(4)], NOON, summary)
    found = backfill_share.take(tmp_path / "done", task(run_id(4)), started)
    assert found == ({"run": run_id(3), "began": NOON.isoformat(), "summary": summary} if counts else None)
    assert backfill_share.take(tmp_path / "done", task(run_id(4)), NOON - timedelta(hours=1)) is None
    assert list((tmp_path / "done").iterdir()) == []


def test_it_is_left_for_that_run_of_that_task_alone(tmp_path):
    backfill_share.leave(tmp_path, task(run_id(3)), [run_id(4)], NOON, [])
    other = task(run_id(4))
    other.dag_id = "gold_trade_features"
    for one in (other, task(run_id(5)), task(run_id(4, ending="other")), task(run_id(3))):
        assert backfill_share.take(tmp_path, one, NOON - timedelta(hours=1)) is None


def test_what_nobody_came_for_is_gone_after_a_day(tmp_path):
    backfill_share.leave(tmp_path, task(run_id(3)), [run_id(4)], NOON, [])
    (forgotten,) = tmp_path.iterdir()
    os.utime(forgotten, (time.time() - 90_000,) * 2)
    backfill_share.leave(tmp_path, task(run_id(6)), [run_id(7)], NOON, [])
    assert forgotten not in list(tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 1
