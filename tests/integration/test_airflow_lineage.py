"""A Dag of the project, as `dags test` runs it: connections from a file, lineage by HTTP, metrics by OpenTelemetry."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from marketflow.services.environment import embedded_environment
from marketflow.stack import airflow
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from tests.integration.airflow_stage import postgres_server
from tests.integration.production_stage import otlp_receiver
from tests.receiver import Receiver, receiver

HOUR = datetime(2026, 11, 20, 5, tzinfo=UTC)
# gold's job as far as its Dag sees it
JOB = """
import json, sys
done = [{"table": "gold.bars", "rows": 7, "hours": ["2026-11-20T05:00:00+00:00"]}]
open(sys.argv[sys.argv.index("--summary") + 1], "w").write(json.dumps(done))
"""
RUN = """
import os, sys
from datetime import datetime
from pathlib import Path
from marketflow import paths
sys.path += [os.environ["AIRFLOW__CORE__PLUGINS_FOLDER"], os.environ["AIRFLOW__CORE__DAGS_FOLDER"]]
hour, jobs = sys.argv[1:]
sys.argv = ["airflow", "dags", "test"]
from airflow.dag_processing.dagbag import DagBag
dag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"] + "/gold_bars.py", bundle_name="dags-folder").dags["gold_bars"]
paths.PROJECT_FOLDER = Path(jobs)
for task in dag.tasks:
    task.retries = 0  # a test does not wait for what is tried again
sys.exit(str(dag.test(logical_date=datetime.fromisoformat(hour)).state) != "success")
"""


@dataclass
class Told:
    """What arrived at the two addresses."""

    lineage: Receiver
    metrics: list[tuple[str, bytes]]

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.lineage.bodies


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder: Path = tmp_path_factory.mktemp("lineage")
    (folder / "spark_jobs").mkdir()
    (folder / "spark_jobs" / "gold.py").write_text(JOB)
    airflow_home.migrate()
    shutil.copy(airflow_home.MIGRATED, folder / "airflow.db")
    with postgres_server(folder / "home") as server, receiver() as lineage, otlp_receiver() as (collector, posted):
        with connect(server.settings, autocommit=True) as connection:
            for table in ("silver.trades", "gold.bars"):
                freshness.mark(connection, table, HOUR + timedelta(days=1))
        asked = {"airflow_secrets": "file", "airflow_lineage": lineage.url, "airflow_metrics": collector}
        settings = server.settings.model_copy(update=asked)
        airflow.prepare(settings)
        variables = {
            **embedded_environment(settings),
            **airflow.environment(settings),
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        }
        # sensor and account ask PostgreSQL by marketflow_pg, which the file alone has
        assert not [name for name in variables if name.startswith("AIRFLOW_CONN_")]
        command = [sys.executable, "-c", RUN, HOUR.isoformat(), str(folder)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
        yield Told(lineage, posted)


def test_a_run_with_its_connections_in_a_file_is_told_from_beginning_to_end(told: Told) -> None:
    tasks = [f"gold_bars.{name}" for name in ("silver_is_complete", "rewrite_hours", "account_gold_bars")]
    ends = {(one["eventType"], one["job"]["name"]) for one in told.events}
    assert ends >= {(kind, task) for kind in ("START", "COMPLETE") for task in tasks}
    # `dags test` tells no run's beginning; the scheduler does: test_airflow_production.py
    assert ("COMPLETE", "gold_bars") in ends
    assert {one["job"]["namespace"] for one in told.events} == {"marketflow-sim"}


def test_the_asset_that_a_task_wrote_is_in_its_event(told: Told) -> None:
    wanted = ("COMPLETE", "gold_bars.account_gold_bars")
    (ended,) = [one for one in told.events if (one["eventType"], one["job"]["name"]) == wanted]
    assert "marketflow://lake/gold/bars" in json.dumps(ended["run"]["facets"]["airflow"]["task"]["outlets"])


def test_metrics_arrive_by_opentelemetry(told: Told) -> None:
    names = set()
    for path, body in told.metrics:
        assert path == "/v1/metrics"
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            assert ("service.name", "airflow-sim") in {
                (a.key, a.value.string_value) for a in resource.resource.attributes
            }
            names |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
    assert {"airflow.ti.start", "airflow.ti.finish"} <= names, sorted(names)
