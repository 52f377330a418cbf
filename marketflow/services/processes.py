"""Processes as Linux shows them in /proc: who descends from whom, and which are left over from an earlier run.

A process is named by its id and its start time together, since an id alone may be a stranger's by the time it is used.
Standard library only: the wrapper, of which there is one per service, imports this.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Every process of a service inherits it, also those that left its session.
RUN_VARIABLE = "MARKETFLOW_SERVICE_RUN"


@dataclass(frozen=True)
class Process:
    """One line of the process table; `start_ticks` counts clock ticks from boot to its start."""

    pid: int
    parent: int
    group: int
    session: int
    start_ticks: int
    zombie: bool

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process of this boot can ever have: id and start time."""
        return self.pid, self.start_ticks


def boot_id() -> str:
    """Changes with every boot; start times of different boots must not be compared."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read(pid: int) -> Process | None:
    """The process with this id, or None when there is none."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # the name is in parentheses and may hold blanks and parentheses itself
    fields = line[line.rindex(")") + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), int(fields[19]), fields[0] in "ZX")


def table() -> dict[int, Process]:
    """Every process that can be seen now."""
    found = (read(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - a tenth of the time of iterdir
    return {process.pid: process for process in found if process is not None}


def command_line(pid: int) -> str:
    """Its command as `ps` shows it, or an empty string once it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descendants(root: int) -> list[Process]:
    """Living processes below `root`, parents before their children."""
    children: dict[int, list[Process]] = {}
    for process in table().values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += [process for process in below if not process.zombie]
        waiting += [process.pid for process in below]
    return found


@dataclass(frozen=True)
class Run:
    """What an earlier run of a service wrote down, enough to know its processes from strangers."""

    boot_id: str
    run_id: str
    leader: tuple[int, int]
    members: tuple[tuple[int, int], ...] = ()


def survivors(run: Run) -> list[Process]:
    """Living processes of a run.

    Certain are those with a recorded id and start time and those that carry the run's id in their environment (a
    program that sets its own title wipes its environment, hence both). A session or group that holds one of them is
    wholly the run's: the kernel gives its number to nobody else while a member lives. Others are never touched.
    """
    if run.boot_id != boot_id():
        return []
    mark = f"{RUN_VARIABLE}={run.run_id}".encode()
    recorded = {run.leader, *run.members}
    living = [process for process in table().values() if not process.zombie and process.pid != os.getpid()]
    certain = [process for process in living if process.identity in recorded or mark in _environment(process.pid)]
    sessions = {process.session for process in certain} | {process.group for process in certain}
    # a member that never left the session of whoever started the wrapper must not name that session as the run's
    sessions -= {0, os.getsid(0), os.getpgrp()}
    return [process for process in living if process in certain or {process.session, process.group} & sessions]


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        # another user's process is none of ours unless its id and start time say so
        return []


def send(process: Process, number: int) -> bool:
    """Signal exactly this process, never one that took over its id; False when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        now = read(process.pid)
        if now is None or now.identity != process.identity:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def alive(process: Process) -> bool:
    """Whether it still runs."""
    now = read(process.pid)
    return now is not None and now.identity == process.identity and not now.zombie


def end(run: Run, *, stop_signal: int = signal.SIGTERM, grace_s: float = 5.0) -> list[tuple[Process, str]]:
    """End what is left of a run, gently and then by force; each with the command it had."""
    ended: dict[tuple[int, int], tuple[Process, str]] = {}
    for number, patience_s in ((stop_signal, grace_s), (signal.SIGKILL, grace_s)):
        left = survivors(run)
        for process in left:
            ended.setdefault(process.identity, (process, command_line(process.pid)))
            send(process, number)
        _wait(left, patience_s)
    return list(ended.values())


def _wait(left: Iterable[Process], patience_s: float) -> None:
    for _ in _ticks(patience_s):
        left = [process for process in left if alive(process)]
        if not left:
            return


def _ticks(seconds: float, step_s: float = 0.05) -> Iterator[float]:
    """Points in time until `seconds` have passed; at least one."""
    deadline = time.monotonic() + seconds
    yield 0.0
    while (left_s := deadline - time.monotonic()) > 0:
        time.sleep(min(step_s, left_s))
        yield left_s
