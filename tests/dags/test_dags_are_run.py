"""Every Dag is run by a test: by Airflow's own loop on real servers, not only parsed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.dags.test_dags import EXPECTED

TESTS = Path(__file__).parents[1]
MORNING = "e2e/test_recorded_morning.py"
RUN_IN = {
    "producers": "integration/test_airflow_services.py",
    "market_stream": "integration/test_airflow_stream_service.py",
    "stream_reset": "integration/test_stream_reset.py",
    "advance": "e2e/test_open_hour.py",
    "heal_gaps": "integration/test_heal_holes.py",
    "backfill_history": "integration/test_backfill.py",
    "silver": "integration/test_airflow_lake.py",
    "gold_price_metrics": MORNING,
    "gold_bars": MORNING,
    "gold_trade_features": MORNING,
    "gold_daily": MORNING,
    "publish_product_day": MORNING,
    "publish_trade_features": MORNING,
    "publish_price_metrics": MORNING,
    "publish_top_movers": MORNING,
    "publish_bars": MORNING,
    "maintain_lake": MORNING,
    "crawl_catalog": "integration/test_airflow_crawl.py",
    "quality": "integration/test_quality_dags.py",
    "train_forecast": "integration/test_forecast.py",
}
# `dag.test`, the end-to-end tests' way to it, and what `make dag` runs
RUNS = re.compile(r'\.test\(|run_dags\(|"scripts" / "dag"')


def named(source: str) -> set[str]:
    """The strings of a program, each up to a date or a form: `gold_bars`, `gold_bars@2026-11-20T05:00`."""
    strings = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {re.split("[@ ]", text)[0] for text in strings if isinstance(text, str)}


def test_of_every_dag_it_is_said_which_test_runs_it():
    assert RUN_IN.keys() == EXPECTED


@pytest.mark.parametrize("dag_id", sorted(RUN_IN))
def test_the_test_that_is_said_to_run_a_dag_names_it(dag_id):
    source = (TESTS / RUN_IN[dag_id]).read_text()
    assert RUNS.search(source)
    assert dag_id in named(source)
