"""The account of a table that a job did not bring up to date: who is told, and by which task."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.account import not_moved, work_of
from marketflow_airflow.notify import KnownFailure

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
OK = {"table": "silver.trades", "status": "ok", "rows": 7, "hours": []}


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
