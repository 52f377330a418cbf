"""Every command line by which a Dag starts Spark, for each way a run comes to be: reviewed/spark_lines.txt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType

from marketflow_airflow.spark import SparkJobOperator
from tests import reviewed_files

RUN_AFTER = datetime(2026, 11, 20, 6, 30, tzinfo=UTC)
# how the run came to be → its type, whether it has a key, and what the form holds
WAYS = {
    "scheduled": (DagRunType.SCHEDULED, True, {}),
    "backfilled": (DagRunType.BACKFILL, True, {}),
    "by hand": (DagRunType.MANUAL, False, {}),
    "by hand, with the form": (
        DagRunType.MANUAL,
        False,
        {
            "partition": "2026-11-18T03:20:00Z",
            "deep": True,
            "approved_by": "ada",
            "topics": ["trades", "prices"],
        },
    ),
}
KEYS = {"gold_daily": "2026-11-19"}


def pulled(task_ids: str) -> object:
    return {"responded_by_user": {"name": "ada"}} if task_ids == "approve" else None


def line(task: SparkJobOperator, way: str) -> str:
    """The task's command line, its own paths left out."""
    run_type, has_key, form = WAYS[way]
    known = task.dag.params.dump()
    run = SimpleNamespace(
        dag_id=task.dag_id,
        partition_key=KEYS.get(task.dag_id, "2026-11-20T05:00:00") if has_key and "partition" in known else None,
        logical_date=None,
        run_after=RUN_AFTER,
        run_type=run_type,
        conf=None,
    )
    filled = {name: form.get(name, value) for name, value in known.items()}
    context = {"dag_run": run, "params": filled, "ti": SimpleNamespace(xcom_pull=pulled), "dag": task.dag}
    twin = task.prepare_for_execution()
    twin.render_template_fields(context)
    _program, script, *arguments = twin._command(context, Path("SUMMARY"))
    return " ".join(["python", "/".join(Path(script).parts[-2:]), *(argument or "''" for argument in arguments)])


def tasks(dags):
    found = [task for dag in dags.values() for task in dag.tasks if isinstance(task, SparkJobOperator)]
    return sorted(found, key=lambda task: (task.dag_id, task.task_id))


def test_spark_is_started_by_the_reviewed_lines(dags, tmp_path, monkeypatch):
    # whose deep run of maintenance was never missed
    monkeypatch.setenv("MARKETFLOW_HOME", str(tmp_path))
    text = []
    for task in tasks(dags):
        shared = " (a backfill's share one session)" if task.share_in_backfills else ""
        text.append(f"{task.dag_id}.{task.task_id}{shared}")
        text += [f"  {way}: {line(task, way)}" for way in WAYS]
    reviewed_files.compare("spark_lines.txt", "\n".join(text) + "\n")


def test_a_line_that_changed_is_shown_with_the_way_to_accept_it(monkeypatch):
    monkeypatch.delenv(reviewed_files.ACCEPT, raising=False)
    reviewed = (reviewed_files.FOLDER / "spark_lines.txt").read_text()
    with pytest.raises(AssertionError, match=r"(?s)-.*--force.*\+.*MARKETFLOW_TEST_ACCEPT=1"):
        reviewed_files.compare("spark_lines.txt", reviewed.replace(" --force", ""))
