"""Starting a job of spark_jobs/ as a child process of the task, and reading what it says about its work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from marketflow_airflow import backfill_share
from marketflow_airflow.interval import resolve
from marketflow_airflow.notify import JobEnded

SPARK_POOL = "spark"
EXIT_BUSY = 75
XCOM_RETURN_KEY = BaseXCom.XCOM_RETURN_KEY
# what py4j says in the job when its JVM is there no more
_JVM_GONE = "Py4JNetworkError"
# command, environment, and who gets the lines; the exit status
Start = Callable[[Sequence[str], Mapping[str, str], Callable[[str], None]], int]


class SparkJobOperator(BaseOperator):
    """Runs `spark_jobs/<job>.py` and returns the JSON it wrote to its `--summary` file.

    Exit status 75 says that another process holds the table's lock: the task fails and is retried, which holds no
    slot meanwhile. Killing the task ends the job's whole process group.
    """

    template_fields: Sequence[str] = ("arguments",)
    ui_color = "#fde68a"

    def __init__(
        self,
        *,
        job: str,
        arguments: Sequence[str] = (),
        window_option: str | None = None,
        window_grain: str = "hour",
        only_when_scheduled: Sequence[str] = (),
        forced_unless_scheduled: Sequence[str] = (),
        retry_only_when_busy: bool = False,
        share_in_backfills: bool = False,
        several_windows: bool = False,
        **kwargs: Any,
    ) -> None:
        """Say which job and how its command line comes from the run.

        `job` is the file's stem. `window_option` (`--hours`) is given with the start of the run's window.
        `only_when_scheduled` is added in scheduled runs, `forced_unless_scheduled` in all others: a person who asks
        for an hour wants that hour done, the schedule wants what is due. `retry_only_when_busy` is for a job whose
        next run takes up whatever this one left: it is tried again where a lock was held or it was ended from outside.
        `share_in_backfills`: a backfill's runs have their jobs done one after the other in one session, because
        starting one takes longer than an hour's work. `several_windows`: `window_option` takes a list with commas, and
        a backfill's job those of the runs that wait behind it too.
        """
        kwargs.setdefault("pool", SPARK_POOL)
        super().__init__(**kwargs)
        self.job, self.arguments = job, list(arguments)
        self.window_option, self.window_grain = window_option, window_grain
        self.only_when_scheduled = list(only_when_scheduled)
        self.forced_unless_scheduled = list(forced_unless_scheduled)
        self.retry_only_when_busy = retry_only_when_busy
        self.share_in_backfills, self.several_windows = share_in_backfills, several_windows
        self._process: subprocess.Popen[str] | None = None
        self.told_to_end = False

    def _command(self, context: Mapping[str, Any], summary: Path, others: Iterable[datetime] = ()) -> list[str]:
        from marketflow.paths import PROJECT_FOLDER

        script = PROJECT_FOLDER / "spark_jobs" / f"{self.job}.py"
        command = [sys.executable, str(script), *filter(None, self.arguments)]
        if self.window_option:
            window = resolve(context, self.window_grain)
            self.log.info("window %s to %s, from %s", window.start, window.end, window.source)
            starts = [window.start, *(start for start in others if start != window.start)]
            command += [self.window_option, ",".join(start.isoformat() for start in starts)]
        scheduled = context["dag_run"].run_type == "scheduled"
        command += self.only_when_scheduled if scheduled else self.forced_unless_scheduled
        return [*command, "--summary", str(summary)]

    def execute(self, context: Mapping[str, Any]) -> Any:
        """Run the job, its output going to the task's log as it comes."""
        if not (self.share_in_backfills and context["dag_run"].run_type == "backfill"):
            return self._run(context, self._as_child)
        if not self.several_windows:
            return self._run(context, self._in_host)
        folder, ti = _host_folder() / "done", context["ti"]
        left = backfill_share.take(folder, ti, context["dag_run"].start_date)
        if left is not None:
            self.log.info("written by the job of run %s, which began at %s", left["run"], left["began"])
            return left["summary"]
        began, others = datetime.now(UTC), backfill_share.waiting(ti, self.window_grain, self.retries)
        if others:
            self.log.info("the job does the windows of %d runs that wait as well: %s", len(others), ", ".join(others))
        summary = self._run(context, self._in_host, others.values())
        backfill_share.leave(folder, ti, others, began, summary)
        return summary

    def _run(self, context: Mapping[str, Any], start: Start, others: Iterable[datetime] = ()) -> Any:
        # Airflow's own settings and connections are no business of the job
        environment = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
        with tempfile.TemporaryDirectory() as folder:
            summary = Path(folder) / "summary.json"
            command = self._command(context, summary, others)
            self.log.info("running %s", " ".join(command[1:]))
            last, jvm_gone = "", False

            def say(line: str) -> None:
                nonlocal last, jvm_gone
                last, jvm_gone = line.rstrip() or last, jvm_gone or _JVM_GONE in line
                self.log.info("%s", line.rstrip())

            status = start(command, environment, say)
            if status != 0:
                self._keep(context, summary)
            if status == EXIT_BUSY:
                raise AirflowException(f"another process is writing the table, trying again later: {last}")
            if status != 0:
                said = f"{self.job} ended with {status}: {last}"
                # what Airflow ended itself is not from outside
                if (status < 0 or jvm_gone) and not self.told_to_end:
                    raise JobEnded(said)
                raise AirflowFailException(said) if self.retry_only_when_busy else AirflowException(said)
            return json.loads(summary.read_text()) if summary.exists() else None

    @staticmethod
    def _keep(context: Mapping[str, Any], summary: Path) -> None:
        """What a job that failed did to other tables: their account tasks run all the same, and tell it."""
        if summary.exists():
            context["ti"].xcom_push(XCOM_RETURN_KEY, json.loads(summary.read_text()))

    def _as_child(self, command: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]) -> int:
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",  # a byte of the JVM's that is no text must not end the task before its job
            env=environment,
            start_new_session=True,
        )
        for line in self._process.stdout or ():
            say(line)
        return self._process.wait()

    def _in_host(self, command: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]) -> int:
        """In the session that a backfill's runs share; it ends with this task, should that be killed."""
        from marketflow.lake import job_client

        try:
            return job_client.run(_host_folder(), Path(command[1]), command[2:], environment, say)
        except job_client.JobHostError as error:
            raise JobEnded(str(error)) from error

    def on_kill(self) -> None:
        """End the job's JVM and workers too; a job that is cut short is repeated whole."""
        self.told_to_end = True
        if self._process and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)


def _host_folder() -> Path:
    from marketflow import settings

    return settings.load().home / "run" / "spark-host"
