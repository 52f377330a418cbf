"""A home with small programs as services, and a view of their processes that shares no code with what it judges.

Every process of a service inherits MARK with the home's path; psutil finds them by it wherever they went.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from marketflow.services.definitions import ServiceDefinition
from marketflow.services.environment import machine_environment

MARK = "TEST_HOME_MARK"

# A leader, a child in its group, and one that left for a session of its own, as Airflow's tasks and PostgreSQL's do.
TREE = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, start_new_session=True)
print("tree stands", os.getpid(), flush=True)
time.sleep(600)
"""
SLEEPER = "import time\nprint('awake', flush=True)\ntime.sleep(600)"
# says in a common file in which order programs were told to stop, and by which signal
FAREWELL = """
import os, signal, sys, time
def leave(number, frame):
    with open(os.environ["FAREWELLS"], "a") as file:
        file.write(sys.argv[1] + " " + signal.Signals(number).name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGINT, leave)
print("ready", flush=True)
while True:
    time.sleep(0.1)
"""


def eventually(condition: Callable[[], Any], what: str, patience_s: float = 30.0) -> Any:
    """The first true answer of a condition; a failure after a patience that only a broken program exhausts."""
    deadline = time.monotonic() + patience_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.05)
    return answer


@dataclass(frozen=True)
class Stage:
    """One temporary home."""

    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {**machine_environment(), MARK: str(self.home), **more}

    def definition(self, name: str, source: str, *arguments: str, **more: Any) -> ServiceDefinition:
        variables = more.pop("variables", {})
        program = self.home / f"{name}.py"
        program.write_text(source)
        defaults = {"group": "feed", "stop_wait_s": 5.0}
        return ServiceDefinition(
            name=name,
            command=(sys.executable, str(program), *arguments),
            environment=self.environment(**variables),
            **{**defaults, **more},
        )

    def processes(self) -> dict[int, psutil.Process]:
        """Every living process of any service, wherever it went."""
        return {process.pid: process for process in psutil.process_iter() if self._is_ours(process)}

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            return alive and process.pid != os.getpid() and process.environ().get(MARK) == str(self.home)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def machinery(self) -> dict[int, str]:
        """Living supervisord and wrappers of this home."""
        found = {}
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            ours = str(self.home) in command and ("supervisor.supervisord" in command or ".wrapper" in command)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found[process.pid] = command
        return found
