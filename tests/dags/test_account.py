"""What an asset's event says of the work behind it, from the summaries that the jobs write."""

from __future__ import annotations

import pytest

from marketflow_airflow.account import work_of


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
            [{"table": "silver.trades", "hour": "2026-11-20T05:00:00+00:00", "inserted": 3, "items": 900}],
            (3, "2026-11-20T05:00:00+00:00", "2026-11-20T06:00:00+00:00", 1),
        ),
        ("silver.trades", [{"table": "silver.trades", "status": "ok", "inserted": 12}], (12, None, None, None)),
    ],
)
def test_rows_and_hours_of_the_table_alone(table, summary, facts):
    said = work_of(table, summary)
    assert tuple(said.get(name) for name in ("rows", "interval_start", "interval_end", "hours")) == facts


@pytest.mark.parametrize("summary", [None, [], [{"table": "gold.bars", "status": "failed", "error": "x"}]])
def test_a_job_that_did_nothing_says_nothing(summary):
    assert work_of("gold.bars", summary) == {}
