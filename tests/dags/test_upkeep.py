"""The deep run of maintain_lake: at its hour, where somebody asks, and where it was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from marketflow.settings import load
from marketflow.stack import deep_runs
from marketflow_airflow.upkeep import is_deep

SIX = datetime(2026, 11, 20, 6, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("MARKETFLOW_HOME", str(tmp_path))
    return load()


def deep(run_type="scheduled", at=SIX, asked=False):
    return is_deep({"deep": asked}, SimpleNamespace(run_type=run_type, run_after=at), deep_runs.LAKE)


def test_it_is_deep_at_its_hour_or_where_somebody_asks_and_not_because_somebody_runs_it_at_that_hour(settings):
    assert deep(at=SIX.replace(hour=3))
    assert not deep()
    assert not deep("manual", SIX.replace(hour=3))
    assert deep("manual", asked=True)
    assert (settings.home / "upkeep" / "lake").exists()


def test_one_that_was_missed_is_made_up_by_the_next_run_and_that_counts(settings):
    now = datetime.now(UTC)
    deep_runs.done(settings, deep_runs.LAKE, now - 25 * HOUR)
    assert not deep()
    deep_runs.done(settings, deep_runs.LAKE, now - 27 * HOUR)
    assert deep()
    assert deep(), "it has not been done yet"
    assert not deep("manual")
    deep_runs.done(settings, deep_runs.LAKE)
    assert not deep()


def test_a_home_of_today_has_missed_nothing(settings):
    assert not deep_runs.is_overdue(settings, deep_runs.AIRFLOW, SIX)
    assert not deep_runs.is_overdue(settings, deep_runs.AIRFLOW, SIX + 26 * HOUR)
    assert deep_runs.is_overdue(settings, deep_runs.AIRFLOW, SIX + 27 * HOUR)
