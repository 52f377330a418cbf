"""What a wrapper writes down about its service: `<state folder>/<name>.json`, and the lock that says it lives.

Standard library only: the wrapper imports this.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from marketflow.services.processes import Run

FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 60.0
# what is written down of crashes: enough to see one that comes again and again
CRASHES_KEPT = 20


def delay_s(failures: int) -> float:
    """Pause before the next start after so many failures in a row: 0, 1, 2, 4 … 60 seconds."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (min(failures, 10) - 1)) if failures > 0 else 0.0


@dataclass(frozen=True)
class State:
    """The life of one service, as its wrapper last saw it.

    `phase` is starting, waiting, backoff, running, stopping or ended. Times are seconds since the epoch. `crashes` are
    the newest ends that nobody asked for, of the command and of the wrapper, and `crash` the last of them in words; a
    stop forgets them.
    """

    phase: str = "ended"
    since: float = 0.0
    detail: str = ""
    failures: int = 0
    wrapper_pid: int = 0
    configuration: str = ""
    boot_id: str = ""
    run_id: str = ""
    pid: int = 0
    start_ticks: int = 0
    members: tuple[tuple[int, int], ...] = ()
    exit_status: int | None = None
    crashes: tuple[float, ...] = ()
    crash: str = ""

    @property
    def run(self) -> Run | None:
        """The processes of the last run, as far as they were written down; None when it left none."""
        if not self.run_id:
            return None
        return Run(self.boot_id, self.run_id, (self.pid, self.start_ticks), self.members)

    def with_crash(self, at: float) -> tuple[float, ...]:
        """Its crashes and one more."""
        return (*self.crashes, at)[-CRASHES_KEPT:]

    def with_changes(self, **changes: Any) -> State:
        """A copy that differs in the named fields."""
        return replace(self, **changes)


def read_state(folder: Path, name: str) -> State:
    """The state of a service; that of one that never ran where there is no file."""
    try:
        stored: Mapping[str, Any] = json.loads((folder / f"{name}.json").read_text())
    except FileNotFoundError:
        return State()
    members = tuple((int(pid), int(ticks)) for pid, ticks in stored["members"])
    return State(**{**stored, "members": members, "crashes": tuple(stored.get("crashes", ()))})


def write_state(folder: Path, name: str, state: State) -> None:
    """Replace the file whole, so that no reader and no crash ever sees half of it."""
    temporary = folder / f".{name}.json.{os.getpid()}"
    temporary.write_text(json.dumps(asdict(state)))
    temporary.replace(folder / f"{name}.json")


def take_lock(folder: Path, name: str) -> int | None:
    """The lock of a service as an open file, held until the process ends; None while another wrapper lives."""
    handle = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def wrapper_lives(folder: Path, name: str) -> bool:
    """Whether a wrapper of this service holds its lock."""
    if not (folder / f"{name}.lock").exists():
        return False
    handle = take_lock(folder, name)
    if handle is None:
        return True
    os.close(handle)
    return False
