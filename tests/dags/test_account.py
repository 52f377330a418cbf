"""What an account says of the work behind it, from the summaries that the jobs write; and of whose failure it tells."""

from __future__ import annotations

import importlib.util
from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException

from marketflow.lake import silver
from marketflow.lake.accounting import Accounting
from marketflow.lake.silver_commit import SilverCommit
from marketflow.paths import PROJECT_FOLDER
from marketflow_airflow.account import not_moved, work_of
from marketflow_airflow.notify import KnownFailure

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
OK = {"table": "silver.trades", "status": "ok", "rows": 7, "hours": []}


@pytest.mark.parametrize(
    ("table", "summary", "facts"),
    [
        (
            "gold.bars",
            [
                {"table": "gold.bars", "status": "ok", "rows": 60, "hours": ["2026-11-20T06:00:00+00:00"]},
                {"table": "gold.top_movers", "status": "ok", "rows": 9, "hours": ["2026-11-20T01:00:00+00:00"]},
            ],
            (60, "2026-11-20T06:00:00+00:00", "2026-11-20T07:00:00+00:00", 1),
        ),
        (
            "gold.product_day",
            [{"table": "gold.product_day", "rows": 4, "hours": ["2026-11-19T00:00:00+00:00"]}],
            (4, "2026-11-19T00:00:00+00:00", "2026-11-20T00:00:00+00:00", 1),
        ),
        (
            "silver.trades",
            [{"table": "silver.trades", "rows": 3, "hours": ["2026-11-20T05:00:00+00:00"], "items": 900}],
            (3, "2026-11-20T05:00:00+00:00", "2026-11-20T06:00:00+00:00", 1),
        ),
        ("silver.trades", [{"table": "silver.trades", "status": "ok", "rows": 0, "hours": []}], (0, None, None, None)),
    ],
)
def test_rows_and_hours_of_the_table_alone(table, summary, facts):
    said = work_of(table, summary)
    assert tuple(said.get(name) for name in ("rows", "interval_start", "interval_end", "hours")) == facts


def test_the_lines_of_the_jobs_are_what_is_read():
    """Of commits as `advance` makes them: two hours of one product, one of them again of another."""
    five, six = (datetime(2026, 11, 20, hour, tzinfo=UTC) for hour in (5, 6))
    commits = [
        SilverCommit(
            "silver.trades", 7, six, None, Accounting(accepted=9, already_here=2), {"BTC-USD": [five, six]}, six
        ),
        SilverCommit("silver.trades", 8, six, None, Accounting(accepted=1), {"ETH-USD": [six]}, six),
    ]
    line = load("advance")._silver_line(silver.Outcome("silver.trades", commits))
    assert work_of("silver.trades", [line]) == {
        "rows": 8,
        "interval_start": five.isoformat(),
        "interval_end": "2026-11-20T07:00:00+00:00",
        "hours": 2,
    }
    nothing = load("advance")._silver_line(silver.Outcome("silver.trades", []))
    assert work_of("silver.trades", [nothing]) == {"rows": 0}


def load(name):
    """A program of spark_jobs/."""
    spec = importlib.util.spec_from_file_location(name, PROJECT_FOLDER / "spark_jobs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("summary", [None, [], [{"table": "gold.bars", "status": "failed", "error": "x"}]])
def test_a_job_that_did_nothing_says_nothing(summary):
    assert work_of("gold.bars", summary) == {}


@pytest.mark.parametrize(
    ("summary", "known"),
    [
        (None, True),  # the job was killed
        ([OK | {"status": "failed"}], True),
        ([OK | {"status": "busy"}], True),
        ([OK | {"table": "silver.quotes"}], True),
        ([OK], False),  # it says that it was done, and the mark says that it was not
    ],
)
def test_what_the_jobs_own_task_has_told_is_told_once(summary, known):
    error = not_moved("silver.trades", work_of("silver.trades", summary), NOON)
    assert isinstance(error, AirflowFailException)
    assert isinstance(error, KnownFailure) is known
    assert "silver.trades was not brought up to date by this run" in str(error)
