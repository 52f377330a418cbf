"""The embedded Airflow's four processes on PostgreSQL, with the project's Dags and some made for what is looked at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment, program
from marketflow.settings import Settings
from marketflow.stack import airflow, airflow_production
from marketflow.stack.servers import free_ports
from tests.integration.airflow_stage import postgres_server
from tests.receiver import Receiver, receiver

# the order in which they are started; they are stopped as `make down` does
PARTS = {
    "api-server": ("api-server",),
    "dag-processor": ("dag-processor",),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
STOPPING_ORDER = ("scheduler", "dag-processor", "triggerer", "api-server")
PORTS = ("airflow_port", "airflow_log_port", "airflow_trigger_log_port", "airflow_scheduler_health_port")
DAGS = '''
"""Dags of the test: one that waits, one by the hour that emits an asset, one that is woken by it, one by the day, one
that is late, one that takes too long, one whose last task cleans up, and one whose backfill shares its jobs."""
import json, os, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
import marketflow.paths
from airflow.sdk import Asset, CronPartitionTimetable, dag, get_current_context, task
from marketflow_airflow.freshness import FreshnessSensor
from marketflow_airflow.gold import deadline
from marketflow_airflow.interval import KEY_FORMATS, partition_param, resolve
from marketflow_airflow.notify import RecoveryNotifier, deadline_met, run_timed_out
from marketflow_airflow.priority import ScheduleBeforeBackfill
from marketflow_airflow.spark import SparkJobOperator

TABLE = Asset("test_table")
DEFAULTS = {"weight_rule": ScheduleBeforeBackfill(), "on_success_callback": [RecoveryNotifier()]}
COMMON = {
    "start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False, "is_paused_upon_creation": False,
    "default_args": DEFAULTS,
}

@dag(schedule=None, **COMMON)
def test_waits():
    FreshnessSensor(task_id="fresh", tables=["silver.trades"], poke_interval=1, timeout=timedelta(minutes=5))

def wait_for(what):
    while not os.path.exists(os.environ["WINDOWS"] + what):
        time.sleep(0.2)

def say(grain):
    context = get_current_context()
    run, window = context["dag_run"], resolve(context, grain)
    said = [run.dag_id, run.run_id, window.key, window.start.isoformat(), window.end.isoformat(), window.source]
    with open(os.environ["WINDOWS"], "a") as file:
        file.write(json.dumps(said) + "\\n")

EVERY_HOUR = CronPartitionTimetable("0 * * * *", timezone="UTC", run_offset=-1)

@dag(schedule=EVERY_HOUR, params=partition_param("hour"), **COMMON)
def test_hours():
    @task(outlets=[TABLE])
    def work():
        say("hour")
    work()

# as gold_daily's
EVERY_DAY = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, key_format=KEY_FORMATS["day"])

@dag(schedule=EVERY_DAY, params=partition_param("day"), **COMMON)
def test_days():
    @task
    def work():
        say("day")
    work()

@dag(schedule=[TABLE], **COMMON)
def test_listens():
    @task
    def hear():
        pass
    hear()

LATE = deadline("test_late: the hour is late", within=timedelta(seconds=1))

@dag(schedule=None, deadline=LATE, on_success_callback=deadline_met, **COMMON)
def test_late():
    @task
    def work():
        wait_for(".go")
    work()

@dag(schedule=None, dagrun_timeout=timedelta(seconds=5), on_failure_callback=run_timed_out, **COMMON)
def test_long():
    @task
    def work():
        wait_for(".long")
    work()

# as stream_reset's last two tasks
@dag(schedule=None, **COMMON)
def test_marked():
    @task
    def work():
        wait_for(".never")
    @task
    def clean():
        say("hour")
        raise ValueError("no run is well without the work")
    work() >> clean().as_teardown(on_failure_fail_dagrun=True)

class SmallJob(SparkJobOperator):
    def execute(self, context):
        marketflow.paths.PROJECT_FOLDER = Path(os.environ["SMALL_JOBS"])
        return super().execute(context)

@dag(schedule=EVERY_HOUR, params=partition_param("hour"), **COMMON)
def test_shares():
    SmallJob(
        task_id="work", job="small", window_option="--hours", share_in_backfills=True, several_windows=True, retries=0
    )

test_shares()
test_waits()
test_hours()
test_days()
test_listens()
test_late()
test_long()
test_marked()
'''

SMALL_JOB = """
import json, os, sys, time
hours, summary = sys.argv[sys.argv.index("--hours") + 1].split(","), sys.argv[sys.argv.index("--summary") + 1]
time.sleep(2)
with open(os.path.join(os.environ["SMALL_JOBS"], "jobs.ndjson"), "a") as file:
    file.write(json.dumps(hours) + "\\n")
with open(summary, "w") as file:
    json.dump([{"table": "test", "hours": hours}], file)
"""


class Airflow:
    """Four running parts, and the metadata database as the judge of what they did."""

    def __init__(self, settings: Settings, folder: Path, hook: Receiver) -> None:
        self.settings, self.windows, self.hook = settings, folder / "windows.ndjson", hook
        (folder / "dags").mkdir()
        (folder / "dags" / "six.py").write_text(DAGS)
        (folder / "spark_jobs").mkdir()
        (folder / "spark_jobs" / "small.py").write_text(SMALL_JOB)
        self.jobs = folder / "jobs.ndjson"
        bundles = [
            {
                "name": name,
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(path), "refresh_interval": 300},
            }
            for name, path in (("project", PROJECT_FOLDER / "dags"), ("test", folder / "dags"))
        ]
        self.environment = {
            **embedded_environment(settings),
            **airflow.environment(settings),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            # the project's Dags are looked at, not run: their services are not here
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
            "WINDOWS": str(self.windows),
            "SMALL_JOBS": str(folder),
            "MARKETFLOW_ALERT_URL": hook.url,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        for name, arguments in PARTS.items():
            with (self.settings.home / f"{name}.log").open("wb") as log:
                self.processes[name] = subprocess.Popen(
                    [program("airflow"), *arguments],
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    start_new_session=True,
                )
        airflow.wait_until_healthy(self.settings, timeout_s=240)

    def stop(self) -> dict[str, bool]:
        """Name → whether it left by itself when asked to."""
        left = {}
        for name in STOPPING_ORDER:
            process = self.processes.get(name)
            if process is None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                # the scheduler waits for what its executor still runs
                process.wait(180)
                left[name] = True
            except subprocess.TimeoutExpired:
                left[name] = False
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it may have left behind
        return left

    def command(self, *arguments: str) -> None:
        done = subprocess.run(
            [program("airflow"), *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]

    def ask(self, path: str, body: dict[str, object], method: str = "POST") -> dict[str, Any]:
        """What the API answers to the first user."""
        user, password = next(iter(airflow_production.passwords(self.settings).items()))
        token = self._send("POST", "/auth/token", {"username": user, "password": password})["access_token"]
        return self._send(method, f"/api/v2/{path}", body, authorization=f"Bearer {token}")

    def _send(self, method: str, path: str, body: dict[str, object], **headers: str) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{airflow.base_url(self.settings)}{path}",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json", **headers},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def said(self, dag_id: str) -> list[list[str]]:
        """Run, key, start, end and source of each window that a Dag's runs resolved, in the order of their tries."""
        told = [json.loads(line) for line in self.windows.read_text().splitlines()]
        return [window for name, *window in told if name == dag_id]

    def rows(self, query: str, *parameters: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self.settings.dsn("airflow", "airflow"), options="-c timezone=UTC") as connection:
            return connection.execute(query, parameters).fetchall()

    def states(self, dag_id: str, run_type: str = "%") -> list[str]:
        query = "select state from dag_run where dag_id = %s and run_type like %s"
        return [str(state) for (state,) in self.rows(query, dag_id, run_type)]


@contextmanager
def running(folder: Path) -> Iterator[Airflow]:
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    with receiver() as hook, postgres_server(folder / "home", **ports) as server:
        airflow.migrate(server.settings)
        built = Airflow(server.settings, folder, hook)
        try:
            built.start()
            yield built
        finally:
            left = built.stop()
        assert left == dict.fromkeys(STOPPING_ORDER, True)
