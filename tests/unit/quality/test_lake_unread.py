"""A lake that cannot be read: its checks say why, and no error ends the run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from marketflow.quality import lake
from marketflow.settings import Settings


def test_a_lake_whose_secrets_are_away_leaves_its_checks_unjudged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MARKETFLOW_SECRET_S3_ACCESS_KEY", raising=False)
    results = lake.run_sql(Settings(home=tmp_path), lake.sql_checks(), datetime(2026, 3, 10, tzinfo=UTC))
    assert [one.check for one in results] == list(lake.sql_checks())
    assert {one.outcome for one in results} == {"unjudged"}
    assert all("no secret 's3_access_key'" in one.detail for one in results)
