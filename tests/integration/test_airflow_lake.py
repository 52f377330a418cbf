"""The Dags' own Spark jobs and publication on a real lake, as `make dag` runs them."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from marketflow.paths import PROJECT_FOLDER
from marketflow.warehouse import freshness
from tests.integration.layer_marks import marks_kept

TABLES = (
    *("bronze.trades_raw", "bronze.ticker_raw", "bronze.prices_raw", "bronze.candles_raw"),
    *("silver.trades", "silver.quotes", "silver.asset_prices", "silver.candles"),
    *("gold.bars", "gold.price_metrics", "gold.top_movers", "gold.trade_features"),
)


@pytest.fixture
def everything_is_fresh(embedded):
    """Marks in the future, for the present hour too; those that other tests made are put back."""
    with marks_kept(embedded, emptied=True) as connection:
        for table in TABLES:
            freshness.mark(connection, table, datetime.now(UTC) + timedelta(days=1))
        yield


@pytest.mark.usefixtures("lake", "everything_is_fresh")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("dag_id", ["silver", "publish_bars"])
def test_make_dag_runs_the_real_work_of_an_hour_and_ends_well(embedded, dag_id):
    """Also that a Dag with a deadline ends with 0, and that the job takes the options that its Dag passes.

    Those of gold run in tests/e2e/test_recorded_morning.py.
    """
    environment = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    ports = ("postgres_port", "kafka_port", "s3_port")
    environment |= {f"MARKETFLOW_{name.upper()}": str(getattr(embedded, name)) for name in (*ports, "home")}
    command = [str(PROJECT_FOLDER / "scripts" / "dag"), dag_id, "2026-11-20T05:00"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "No module named" not in done.stdout + done.stderr
    if dag_id == "silver":
        assert (
            "window 2026-11-20 05:00:00+00:00 to 2026-11-20 06:00:00+00:00, from logical_date"
            in done.stdout + done.stderr
        )
    with psycopg.connect(embedded.dsn("airflow", "airflow")) as connection:
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
