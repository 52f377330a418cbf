"""A Spark job is a child process: its summary, its failures, its end. The jobs here are small scripts of the test."""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import psutil
import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from marketflow import paths
from marketflow.lake import job_client
from marketflow_airflow.notify import JobEnded
from marketflow_airflow.spark import SparkJobOperator

SUMMARY_OF_ITSELF = """
import json, os, sys
place = sys.argv.index("--summary") + 1
said = {"arguments": sys.argv[1:place - 1], "environment": dict(os.environ)}
open(sys.argv[place], "w").write(json.dumps(said))
"""
BUSY = "import sys\nprint('gold: gold.bars is held by process 7')\nsys.exit(75)"
BROKEN = "import sys\nprint('starting')\nprint('LakeStateError: silver.trades has no watermark')\nprint()\nsys.exit(3)"
# a job with a child of its own, as a driver has its JVM; both write their process ids
TREE = """
import subprocess, sys, time, os
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(os.environ["TREE"], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes `spark_jobs/<name>.py` of a source text."""
    (tmp_path / "spark_jobs").mkdir()
    monkeypatch.setattr(paths, "PROJECT_FOLDER", tmp_path)

    def make(source, **options):
        (tmp_path / "spark_jobs" / "work.py").write_text(source)
        return SparkJobOperator(task_id="work", job="work", **options)

    return make


def context(run_type="scheduled", key="2026-11-20T05:00:00"):
    run = SimpleNamespace(
        partition_key=key, logical_date=None, run_after=datetime.now(UTC), run_type=run_type, conf=None
    )
    return {"dag_run": run, "params": {}}


def test_what_a_job_writes_to_its_summary_is_the_tasks_result(job):
    said = job(SUMMARY_OF_ITSELF, arguments=["--table", "gold.bars", ""]).execute(context())
    assert said["arguments"] == ["--table", "gold.bars"]


def test_a_job_without_a_summary_has_no_result(job):
    assert job("print('done')").execute(context()) is None


@pytest.mark.parametrize(
    ("run_type", "added"),
    [
        (DagRunType.SCHEDULED, "--dirty"),
        (DagRunType.BACKFILL, "--force"),
        (DagRunType.MANUAL, "--force"),
        (DagRunType.ASSET_TRIGGERED, "--force"),
    ],
)
def test_the_schedule_does_what_is_due_and_a_person_gets_the_hour_done(job, run_type, added):
    work = job(
        SUMMARY_OF_ITSELF,
        window_option="--hours",
        only_when_scheduled=["--dirty"],
        forced_unless_scheduled=["--force"],
    )
    assert work.execute(context(run_type))["arguments"] == ["--hours", "2026-11-20T05:00:00+00:00", added]


def test_a_job_sees_nothing_of_airflows_own_settings_and_connections(job, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MARKETFLOW_PG", '{"password": "secret"}')
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    monkeypatch.setenv("MARKETFLOW_DATASET", "sim")
    environment = job(SUMMARY_OF_ITSELF).execute(context())["environment"]
    assert [name for name in environment if "AIRFLOW" in name] == []
    assert environment["MARKETFLOW_DATASET"] == "sim"
    assert environment["PATH"] == os.environ["PATH"]


def test_a_table_that_is_held_by_another_is_tried_again(job):
    with pytest.raises(AirflowException, match=r"trying again later: gold: gold.bars is held by process 7") as raised:
        job(BUSY, retry_only_when_busy=True).execute(context())
    # AirflowFailException would forgo the retries
    assert not isinstance(raised.value, AirflowFailException)


def test_a_job_that_fails_is_told_by_its_last_line(job):
    with pytest.raises(AirflowException, match=r"work ended with 3: LakeStateError: silver.trades has no watermark"):
        job(BROKEN).execute(context())


def test_a_job_whose_next_run_takes_up_the_rest_is_not_tried_again_for_its_own_faults(job):
    with pytest.raises(AirflowFailException, match="LakeStateError"):
        job(BROKEN, retry_only_when_busy=True).execute(context())


@pytest.mark.parametrize("status", [1, 75])
def test_what_a_job_that_failed_did_to_other_tables_is_kept(job, status):
    kept = {}
    source = f"{SUMMARY_OF_ITSELF}\nsys.exit({status})"
    with pytest.raises(AirflowException):
        job(source, retry_only_when_busy=True).execute(context() | {"ti": SimpleNamespace(xcom_push=kept.__setitem__)})
    assert kept["return_value"]["arguments"] == []


def test_bytes_that_are_no_text_do_not_end_the_task_before_its_job(job):
    said = "import sys\nsys.stdout.buffer.write(b'\\xff\\n')\nsys.stdout.flush()"
    assert job(f"{said}\n{SUMMARY_OF_ITSELF}").execute(context())["arguments"] == []


def test_a_job_that_is_ended_from_outside_is_told_apart_from_one_that_fails(job, monkeypatch):
    with pytest.raises(JobEnded, match="work ended with -9: begun"):
        job("import os\nprint('begun', flush=True)\nos.kill(os.getpid(), 9)").execute(context())
    lost = "py4j.protocol.Py4JNetworkError: Answer from Java side is empty"
    with pytest.raises(JobEnded, match="work ended with 1: gold: not done"):
        job(f"print('{lost}')\nprint('gold: not done')\nraise SystemExit(1)").execute(context())
    # also where the next run would take up the rest: AirflowFailException would forgo the retry
    with pytest.raises(JobEnded, match="work ended with -9"):
        job("import os\nos.kill(os.getpid(), 9)", retry_only_when_busy=True).execute(context())
    work = job("", share_in_backfills=True)

    def gone(*_):
        raise job_client.JobHostError("the host of Spark jobs ended before work was done")

    monkeypatch.setattr(job_client, "run", gone)
    with pytest.raises(JobEnded, match="the host of Spark jobs ended"):
        work.execute(context(DagRunType.BACKFILL))


def test_a_killed_task_leaves_no_process_of_its_job(job, tmp_path, monkeypatch):
    monkeypatch.setenv("TREE", str(tmp_path / "tree"))
    work = job(TREE)
    ended = []
    thread = threading.Thread(target=lambda: ended.append(_outcome(work)))
    thread.start()
    pids = _eventually(lambda: (tmp_path / "tree").exists() and (tmp_path / "tree").read_text().split())
    assert len(pids) == 2
    work.on_kill()
    thread.join(30)
    assert ended == ["work ended with -15: "]
    _eventually(lambda: not any(_runs(int(pid)) for pid in pids))


def _outcome(work):
    with pytest.raises(AirflowException) as raised:
        work.execute(context())
    assert type(raised.value) is AirflowException, "Airflow's own end of it is not one from outside"
    return str(raised.value)


def _runs(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def _eventually(condition):
    deadline = time.monotonic() + 30
    while not (answer := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return answer


def test_the_arguments_of_the_projects_jobs_are_those_their_scripts_take(dags):
    """Every option a Dag passes is one the script declares."""
    checked = set()
    for dag in dags.values():
        for work in (task for task in dag.tasks if isinstance(task, SparkJobOperator)):
            source = (paths.PROJECT_FOLDER / "spark_jobs" / f"{work.job}.py").read_text()
            given = [work.window_option, *work.arguments, *work.only_when_scheduled, *work.forced_unless_scheduled]
            # found in templates too
            for option in [*re.findall(r"--[a-z-]+", " ".join(filter(None, given))), "--summary"]:
                assert f'"{option}"' in source, (work.job, option)
                checked.add((work.job, option))
    assert ("gold", "--hours") in checked
    assert {job for job, _ in checked} == {"advance", "gold", "maintain", "silver", "stream_reset"}
