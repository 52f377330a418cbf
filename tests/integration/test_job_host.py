"""Jobs in a host that stays: same output, same exit status, nobody left behind. The jobs are small scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from marketflow.errors import MarketflowError
from marketflow.lake import job_client
from marketflow.settings import load
from marketflow.stack import secrets
from tests.integration.services_stage import eventually

MARK = "TEST_JOB_HOST_MARK"
WHO = """
import json, os, subprocess, sys
print("from python", sys.argv[1:], flush=True)
subprocess.run(["sh", "-c", "echo from a child; echo and its complaint >&2"])
open(os.environ["TEST_JOBS_SAID"], "a").write(json.dumps([os.getpid(), sys.argv[1:]]) + "\\n")
if __name__ == "__main__":
    sys.exit(int(sys.argv[1]))
"""
SPARK = """
import os
from marketflow.lake.session import end, spark
from marketflow.settings import load
session = spark(load(), "job")
rows = session.range(10, numPartitions=2).rdd.map(lambda row: row.id * 2).sum()
cached = session.conf.get("spark.sql.catalog.lake.cache-enabled")
print("told", os.getpid(), session.sparkContext.applicationId, rows, cached)
end(session)
"""
# a job with a child in the same group, as a driver has its JVM
LONG = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("under way", flush=True)
time.sleep(600)
"""


class Bench:
    """A folder for the host, a place where jobs say who they are, and a view of all processes below."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder / "host", folder / "said"
        self.lines: list[str] = []
        self.environment = {**os.environ, MARK: str(folder), "TEST_JOBS_SAID": str(self.said)}
        self.scripts = folder

    def script(self, source: str) -> Path:
        path = self.scripts / f"job{abs(hash(source))}.py"
        path.write_text(source)
        return path

    def run(self, source: str, *arguments: str) -> int:
        return job_client.run(self.folder, self.script(source), arguments, self.environment, self.lines.append)

    def hosts(self) -> list[int]:
        return [json.loads(line)[0] for line in self.said.read_text().splitlines()]

    def processes(self) -> set[int]:
        found = set()
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == str(self.scripts) and process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process.pid)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    built = Bench(tmp_path)
    yield built
    for pid in built.processes():
        os.kill(pid, signal.SIGKILL)


def test_jobs_share_one_process_and_each_gets_its_own_output_and_status(bench: Bench) -> None:
    assert bench.run(WHO, "0", "first") == 0
    assert bench.lines == ["from python ['0', 'first']", "from a child", "and its complaint"]
    bench.lines.clear()
    assert bench.run(WHO, "75") == 75
    assert bench.lines[0] == "from python ['75']"
    assert bench.run(WHO, "0") == 0
    assert len(set(bench.hosts())) == 1


def test_a_job_that_fails_is_the_last_one_of_its_host(bench: Bench) -> None:
    assert bench.run(WHO, "0") == 0
    assert bench.run("raise ValueError('no such hour')") == 1
    assert bench.lines[-1] == "ValueError: no such hour"
    assert bench.run(WHO, "0") == 0
    first, second = bench.hosts()
    assert first != second
    assert first not in bench.processes()


def test_it_leaves_by_itself_when_nobody_asks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def impatient(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return start([*command, "--idle-s", "1"], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(job_client.subprocess, "Popen", impatient)
    assert bench.run(WHO, "0") == 0
    eventually(lambda: not bench.processes(), "the host to leave")
    assert list(bench.folder.glob("*.sock")) == []
    assert bench.run(WHO, "0") == 0, "the next one starts another"


def test_a_task_that_is_killed_takes_its_job_and_all_its_processes_along(bench: Bench) -> None:
    script = bench.script(LONG)
    asks = (
        "from pathlib import Path\nfrom marketflow.lake import job_client\nimport os\n"
        f"job_client.run(Path({str(bench.folder)!r}), Path({str(script)!r}), [], os.environ, print)\n"
    )
    task = subprocess.Popen([sys.executable, "-uc", asks], env=bench.environment, stdout=subprocess.PIPE, text=True)
    assert task.stdout is not None
    assert task.stdout.readline() == "under way\n"
    assert len(bench.processes()) == 3
    task.kill()
    task.wait()
    eventually(lambda: not bench.processes(), "the host and its job's child to end")
    assert bench.run(WHO, "0") == 0


def test_a_host_that_is_killed_fails_the_job_with_a_sentence(bench: Bench) -> None:
    errors: list[MarketflowError] = []

    def ask() -> None:
        try:
            bench.run(LONG)
        except MarketflowError as error:
            errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    eventually(lambda: bench.lines == ["under way"], "the job to begin")
    for pid in bench.processes():
        os.kill(pid, signal.SIGKILL)
    thread.join(30)
    assert "ended before job" in str(errors[0])


def test_code_that_is_newer_than_the_host_is_run_by_another_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    project = bench.scripts / "project"
    for folder in ("marketflow", "spark_jobs"):
        (project / folder).mkdir(parents=True)
    module = project / "marketflow" / "new.py"
    module.write_text("")
    start = subprocess.Popen
    of_another_project = (
        "from pathlib import Path; from marketflow.lake import job_host; "
        f"job_host.PROJECT_FOLDER = Path({str(project)!r}); job_host.main()"
    )

    def elsewhere(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return start([command[0], "-c", of_another_project, *command[3:]], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(job_client.subprocess, "Popen", elsewhere)
    assert bench.run(WHO, "0") == bench.run(WHO, "0") == 0
    module.write_text("# changed")
    assert bench.run(WHO, "0") == 0
    first, again, other = bench.hosts()
    assert first == again != other
    assert first not in bench.processes()


def test_two_that_ask_at_once_are_served_one_after_the_other(bench: Bench) -> None:
    states: list[int] = []
    threads = [threading.Thread(target=lambda: states.append(bench.run(WHO, "0"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert states == [0] * 4
    assert len(set(bench.hosts())) == 1
    assert len(bench.lines) == 12


@pytest.mark.timeout(240)
def test_spark_jobs_share_a_session_that_ends_with_its_host(bench: Bench) -> None:
    """No table is read here: only that a second job finds the first one's session, workers and all, and none after."""
    secrets.ensure(load(home=bench.scripts / "home"))
    bench.environment["MARKETFLOW_HOME"] = str(bench.scripts / "home")
    assert bench.run(SPARK) == bench.run(SPARK) == 0, bench.lines[-20:]
    first, second = [line.split()[1:] for line in bench.lines if line.startswith("told")]
    assert first == second
    assert first[2:] == ["90", "false"], "the catalog's cache would show tables as they were"
    assert bench.run("raise SystemExit(3)") == 3
    eventually(lambda: not bench.processes(), "the host, its JVM and its workers to end")
