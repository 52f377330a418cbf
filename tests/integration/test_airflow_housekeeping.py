"""Airflow's own leftovers: real runs in its real database, of which the old ones go and nothing else."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from marketflow.errors import SetupError
from marketflow.settings import Settings
from marketflow.stack import airflow, housekeeping
from tests.integration.airflow_stage import postgres_server

DAG = """
from datetime import UTC, datetime
from airflow.sdk import Asset, dag, task

@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
def leaves_rows():
    @task(outlets=[Asset("left_behind")])
    def work():
        return "an xcom"
    work()

leaves_rows()
"""
DAY = timedelta(days=1)
# of what a run leaves, the time that says how old it is
AGES = {
    "dag_run": ("start_date", "run_after", "queued_at", "end_date"),
    "task_instance": ("start_date", "end_date"),
    "asset_event": ("timestamp",),
    "xcom": ("timestamp",),
    "log": ("dttm",),
}


def ask(settings: Settings, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(settings.dsn("airflow", "airflow")) as connection:
        done = connection.execute(query, values)  # type: ignore[arg-type]
        return done.fetchall() if done.description else []


def counts(settings: Settings) -> dict[str, int]:
    return {table: ask(settings, f"select count(*) from {table}")[0][0] for table in AGES}


def written(path: Path, days_ago: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a line\n")
    for each in (path, *list(path.parents)[: len(path.parts) - path.parts.index("logs") - 2]):
        os.utime(each, (time.time() - days_ago * 86_400,) * 2)
    return path


@pytest.mark.timeout(600)
def test_old_runs_and_logs_go_and_what_is_young_or_the_newest_of_its_dag_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "leaves_rows.py").write_text(DAG)
    monkeypatch.setattr(airflow, "PROJECT_FOLDER", tmp_path)
    with postgres_server(tmp_path / "home", airflow_keep_days=30) as server:
        settings = server.settings
        airflow.migrate(settings)
        for day in (1, 2, 3):
            airflow.run(settings, "dags", "test", "leaves_rows", f"2026-03-{day:02d}")
        assert counts(settings)["dag_run"] == counts(settings)["task_instance"] == 3
        assert counts(settings)["asset_event"] == counts(settings)["xcom"] == 3
        # as the scheduler makes them: what `dags test` writes began on its logical date, by hand
        times = ", ".join(f"{column} = now() - make_interval(mins => 60 - id)" for column in AGES["dag_run"])
        ask(settings, f"update dag_run set run_type = 'scheduled', {times}")
        ask(settings, "update task_instance set start_date = now(), end_date = now()")
        runs = [name for (name,) in ask(settings, "select run_id from dag_run order by logical_date")]
        # the first run becomes forty days old, with all it has left; so does a line of the audit log
        for table, columns in AGES.items():
            where = {
                "asset_event": "source_run_id = %s",
                "log": "id = (select min(id) from log) and %s::text is not null",
            }.get(table, "run_id = %s")
            changes = ", ".join(f"{column} = {column} - interval '40 days'" for column in columns)
            ask(settings, f"update {table} set {changes} where {where}", runs[0])
        before = counts(settings)
        logs = airflow.home(settings) / "logs"
        old = written(logs / "dag_id=leaves_rows" / "run_id=old" / "task_id=work" / "attempt=1.log", 31)
        young = written(logs / "dag_id=leaves_rows" / "run_id=young" / "task_id=work" / "attempt=1.log", 29)
        # a task has begun, and has not written yet
        begun = logs / "dag_id=leaves_rows" / "run_id=begun" / "task_id=work"
        begun.mkdir(parents=True)

        # as in a task, where Airflow keeps the metadata database from whoever asks
        monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "airflow-db-not-allowed:///")
        done = housekeeping.clean_airflow(settings, datetime.now(UTC))
        after = counts(settings)
        assert {table: before[table] - after[table] for table in AGES if table != "log"} == {
            "dag_run": 1,
            "task_instance": 1,
            "asset_event": 1,
            "xcom": 1,
        }
        assert ask(settings, "select count(*) from log where dttm < now() - interval '30 days'") == [(0,)]
        assert [name for (name,) in ask(settings, "select run_id from dag_run order by logical_date")] == runs[1:]
        assert ask(settings, "select count(*) from pg_tables where tablename like '%%archive%%'") == [(0,)]
        assert (done.log_files, old.exists(), old.parents[1].exists()) == (1, False, False)
        assert young.exists()
        assert begun.exists()

        # however old: from a Dag's newest run its schedule goes on
        housekeeping.clean_airflow(settings, datetime.now(UTC) + 60 * DAY)
        assert counts(settings)["dag_run"] == 1
        assert not young.exists()

        server.stop()
        with pytest.raises(SetupError, match="airflow db clean"):
            housekeeping.clean_airflow(settings, datetime.now(UTC))
