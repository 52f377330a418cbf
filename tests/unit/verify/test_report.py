"""A report names layer, table, product and keys, for people and for programs."""

from __future__ import annotations

import json

from marketflow.verify.report import Comparison, Report


def test_a_report_with_a_problem_is_not_clean_and_shows_at_most_five_keys() -> None:
    report = Report("sim")
    report.comparisons.append(Comparison("silver", "silver.trades", "BTC-USD", 10, missing=7))
    report.problem("silver", "silver.trades", "BTC-USD", "missing", *map(str, range(7)))
    assert not report.clean
    text = "\n".join(report.lines())
    assert "MISSING silver silver.trades BTC-USD: 7" in text
    assert report.problems[0].examples == ("0", "1", "2", "3", "4")
    assert "NOT CLEAN" in text
    assert json.loads(json.dumps(report.as_json()))["problems"][0]["count"] == 7


def test_a_report_without_problems_is_clean() -> None:
    report = Report("sim")
    assert report.clean
    assert report.lines()[-1].startswith("clean")
    assert report.as_json()["clean"] is True
