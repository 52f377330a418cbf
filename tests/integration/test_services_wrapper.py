"""The wrapper alone, started by the test in supervisord's place."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from marketflow.services import processes
from tests.integration.services_stage import SLEEPER, TREE, Stage, eventually

Run = Callable[..., "subprocess.Popen[str]"]
STUBBORN_TREE = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"],
                 start_new_session=True)
{SLEEPER}
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    built = Stage(tmp_path)
    yield built
    left = built.processes()
    for process in left.values():
        process.kill()
    assert left == {}


@pytest.fixture
def run(stage: Stage) -> Iterator[Run]:
    """Starts a wrapper of service `one` around a program, with its output in wrapper.log."""

    def start(*options: str, source: str = SLEEPER, command: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        program = stage.home / "program.py"
        program.write_text(source)
        own = [sys.executable, "-m", "marketflow.services.wrapper", "one", "--state-dir", str(stage.home / "state")]
        with (stage.home / "wrapper.log").open("a") as log:
            process = subprocess.Popen(
                [*own, *options, "--", *(command or (sys.executable, str(program)))],
                env=stage.environment(),
                stdout=log,
                stderr=log,
                text=True,
            )
        started.append(process)
        return process

    started: list[subprocess.Popen[str]] = []
    yield start
    for process in started:
        process.terminate()
        process.wait(30)


def state(stage: Stage) -> dict[str, object]:
    path = stage.home / "state" / "one.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def log(stage: Stage) -> str:
    return (stage.home / "wrapper.log").read_text()


def services_processes(stage: Stage) -> set[int]:
    """Processes of the service itself, without the wrapper, which has the same mark here."""
    return set(stage.processes()) - set(stage.machinery())


@pytest.mark.parametrize(
    ("source", "status"),
    [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137), ("", 0)],
    ids=["status", "signal", "success"],
)
def test_the_exit_status_is_the_commands(stage: Stage, run: Run, source: str, status: int) -> None:
    assert run(source=source).wait(30) == status
    assert state(stage)["exit_status"] == status
    assert state(stage)["failures"] == 1


def test_a_command_that_does_not_exist_is_named_with_the_reason(stage: Stage, run: Run) -> None:
    assert run(command=("/does/not/exist", "at all")).wait(30) == 127
    assert "cannot run /does/not/exist 'at all'" in log(stage)
    assert "No such file or directory" in log(stage)


def test_it_waits_for_a_port_and_says_so(stage: Stage, run: Run) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{server.getsockname()[1]}"
        run("--wait", target)
        eventually(lambda: f"waits for {target}" in log(stage), "the log line")
        eventually(lambda: state(stage)["phase"] == "waiting", "its state, which is written after the line")
        assert services_processes(stage) == set()
        server.listen()
        eventually(lambda: state(stage)["phase"] == "running", "the start")


def test_a_stop_while_waiting_ends_it_at_once_and_is_no_failure(stage: Stage, run: Run) -> None:
    process = run("--wait", "/does/not/exist")
    eventually(lambda: state(stage).get("phase") == "waiting", "the wait")

    process.terminate()

    assert process.wait(10) == 0
    assert state(stage)["phase"] == "ended"
    assert state(stage)["failures"] == 0


def test_a_killed_wrapper_takes_the_command_along_and_the_next_run_ends_its_descendants_first(
    stage: Stage, run: Run
) -> None:
    first = run(source=TREE)
    eventually(lambda: len(services_processes(stage)) == 3, "the tree")
    leader = state(stage)["pid"]
    left = services_processes(stage) - {leader}

    first.kill()
    first.wait(10)

    eventually(lambda: services_processes(stage) == left, "the command to die")
    # a zombie is dead, only not yet collected by its new parent
    look = "sorted(p.pid for p in psutil.process_iter() if p.pid in LEFT and p.status() != 'zombie')"
    run(source=f"import psutil\nLEFT = {left}\nprint('left', {look}, flush=True)\n{SLEEPER}")
    eventually(lambda: "awake" in log(stage), "the next run")
    assert log(stage).count("ended process") == 2
    assert "left []" in log(stage)


def test_descendants_that_wiped_their_environment_are_found_by_what_was_written_down(stage: Stage, run: Run) -> None:
    # setproctitle overwrites what /proc shows as a process's environment; Airflow and PostgreSQL do so
    titled = "import setproctitle, time; setproctitle.setproctitle('renamed'); time.sleep(600)"
    source = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {titled!r}], start_new_session=True)
print('child', child.pid, flush=True)
{SLEEPER}
"""
    first = run(source=source)
    pid = int(eventually(lambda: [x for x in log(stage).splitlines() if x.startswith("child")], "child")[0].split()[1])
    child = psutil.Process(pid)
    eventually(lambda: child.cmdline()[0] == "renamed", "the child to rename itself")
    eventually(lambda: [pid, processes.read(pid).start_ticks] in state(stage)["members"], "the child to be recorded")
    assert child.environ().get(processes.RUN_VARIABLE) is None

    first.kill()
    first.wait(10)
    assert child.is_running()
    run()

    eventually(lambda: not child.is_running(), "the next run to end it")


def test_a_stranger_with_a_recycled_process_id_is_never_touched(stage: Stage, run: Run) -> None:
    first = run()
    eventually(lambda: state(stage).get("phase") == "running", "the first run")
    first.kill()
    first.wait(10)
    eventually(lambda: services_processes(stage) == set(), "the command to die")
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        forged = {**state(stage), "pid": stranger.pid, "members": [[stranger.pid, 12345]]}
        (stage.home / "state" / "one.json").write_text(json.dumps(forged))
        run()
        eventually(lambda: state(stage)["phase"] == "running" and state(stage)["pid"] != stranger.pid, "the next run")
        assert "ended process" not in log(stage)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(10)


def test_a_tree_that_ignores_the_stop_is_killed_whole(stage: Stage, run: Run) -> None:
    process = run("--stop-wait", "0.5", source=STUBBORN_TREE)
    eventually(lambda: "awake" in log(stage) and len(services_processes(stage)) == 2, "the tree")

    process.terminate()

    assert process.wait(30) == 137
    assert services_processes(stage) == set()
    assert "did not stop in time" in log(stage)
    assert state(stage)["failures"] == 0


def test_a_leader_can_be_stopped_alone_so_that_it_ends_its_own_children(stage: Stage, run: Run) -> None:
    source = """
import signal, subprocess, sys
tell = "import signal, sys, time; signal.signal(15, lambda *_: (print('child told', flush=True), sys.exit(0)))"
child = subprocess.Popen([sys.executable, "-c", tell + "; print('awake', flush=True); time.sleep(600)"])
signal.signal(15, lambda *_: (print('leader told', child.poll(), flush=True), child.kill(), sys.exit(0)))
child.wait()
"""
    process = run("--stop-scope", "leader", source=source)
    eventually(lambda: "awake" in log(stage), "the tree")

    process.terminate()

    assert process.wait(30) == 0
    assert "leader told None" in log(stage)
    assert "child told" not in log(stage)


def test_failures_are_forgotten_after_a_healthy_run(stage: Stage, run: Run) -> None:
    (stage.home / "state").mkdir()
    assert run(source="raise SystemExit(1)").wait(30) == 1
    assert run(source="raise SystemExit(1)").wait(30) == 1
    assert state(stage)["failures"] == 2

    run("--healthy-after", "0.5")

    eventually(lambda: state(stage)["phase"] == "running" and state(stage)["failures"] == 0, "the failures to go")


def test_a_command_of_another_user_still_dies_with_the_wrapper(stage: Stage, run: Run) -> None:
    process = run("--user", "nobody:nogroup", command=("sleep", "600"))
    if os.geteuid() != 0:
        assert process.wait(30) == 127
        assert "Operation not permitted" in log(stage)
        return
    eventually(lambda: state(stage).get("phase") == "running", "the start")
    command = psutil.Process(int(str(state(stage)["pid"])))
    assert command.uids().real == 65534

    process.kill()
    process.wait(10)

    eventually(lambda: not command.is_running(), "the command to die")


def test_only_one_wrapper_of_a_service_runs_at_a_time(stage: Stage, run: Run) -> None:
    first = run()
    eventually(lambda: state(stage).get("phase") == "running", "the first")
    run()
    eventually(lambda: "waits for the previous run of this service to end" in log(stage), "the second to wait")
    assert len(services_processes(stage)) == 1

    first.send_signal(signal.SIGTERM)
    first.wait(30)

    eventually(lambda: log(stage).count("awake") == 2, "the second to start")
    assert len(services_processes(stage)) == 1
