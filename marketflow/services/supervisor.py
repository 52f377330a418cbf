"""The service manager of one machine: supervisord with a wrapper around every service.

supervisord starts a wrapper (`marketflow.services.wrapper`) per service and restarts it whenever it ends; all that
needs judgement (waiting, pausing, ending a whole tree) is the wrapper's, which writes down how its service is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from marketflow.contracts.sources import BY_SERVICE
from marketflow.errors import SetupError
from marketflow.services import processes, supervisor_files
from marketflow.services.backend import ServiceError, ServiceState, ServiceStatus, StackDownError, UnknownServiceError
from marketflow.services.definitions import ServiceDefinition
from marketflow.services.environment import machine_environment, python
from marketflow.services.state import State, read_state, take_lock, wrapper_lives, write_state
from marketflow.services.supervisor_client import ProgramInfo, SupervisorClient
from marketflow.settings import Settings

# Airflow early, since it starts what it finds stopped; then from the sources to what they write to.
FIRST_TO_STOP = (
    # it tells of what ends without being asked to
    "watch",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
    "airflow-api-server",
    # the simulated exchange before its listeners, so that nothing is traded that nobody hears
    "simulator",
    *BY_SERVICE,
)
LAST_TO_STOP = ("market-stream", "s3", "kafka", "postgres")
DAEMON_TIMEOUT_S = 30.0
# a stop may take a service's own time, the wrapper's two clean-ups and supervisord's delay
LONGEST_STOP_S = 150.0
# a wrapper whose supervisord was killed takes this long at most
ORPHANED_WRAPPER_S = 20.0


@dataclass(frozen=True)
class Applied:
    """Names of services whose definition was added, changed or removed."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """A process that was still there when everything had been stopped, and had to be ended."""

    service: str
    pid: int
    command: str


class SupervisorBackend:
    """Services of one home, by their definitions."""

    def __init__(self, settings: Settings, services: Sequence[ServiceDefinition]) -> None:
        self.settings = settings
        self.places = supervisor_files.Places(settings.home)
        self.client = SupervisorClient(self.places.socket)
        self._given = services

    @cached_property
    def definitions(self) -> dict[str, ServiceDefinition]:
        """By name, in starting order."""
        return {definition.name: definition for definition in sorted(self._given, key=lambda one: one.priority)}

    # the whole

    def launch(self, names: Iterable[str] | None = None) -> Applied:
        """Have supervisord run with the present definitions, then start these services (default: all autostart)."""
        applied = self.up()
        chosen = set(names) if names is not None else {one.name for one in self.definitions.values() if one.autostart}
        for name in self.definitions:
            if name in chosen:
                self.start(name)
        return applied

    def up(self) -> Applied:
        """Have supervisord run with the present definitions; starts no service that did not run."""
        if self.client.is_up():
            return self.reload()
        if not any(wrapper_lives(self.places.states, name) for name in self._known_states()):
            supervisor_files.remove_old_environments(self.places)
        supervisor_files.write(self.places, self.definitions.values())
        self._start_daemon()
        return Applied(added=tuple(self.definitions))

    def _start_daemon(self) -> None:
        command = [python(), "-m", "supervisor.supervisord", "-c", str(self.places.configuration)]
        done = subprocess.run(  # noqa: S603 - own list
            command,
            env=machine_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DAEMON_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise SetupError(f"supervisord did not start: {(done.stdout + done.stderr).strip()[-1500:]}")
        if not _within(DAEMON_TIMEOUT_S, self.client.is_up):
            raise SetupError(f"supervisord does not answer; see {self.places.logs / 'supervisord.log'}")

    def reload(self) -> Applied:
        """Apply changed definitions: what changed and runs is started again, what did not change is not touched."""
        supervisor_files.write(self.places, self.definitions.values())
        added, changed, removed = self.client.reread()
        for name in (*removed, *reversed(changed)):
            self._replace(name, keep=name in self.definitions, restart=True)
        for name in added:
            self.client.add(name)
        return Applied(tuple(added), tuple(changed), tuple(removed))

    def _replace(self, name: str, *, keep: bool, restart: bool) -> None:
        ran = self.stop(name)
        self.client.remove(name)
        if keep:
            self.client.add(name)
            if ran and restart:
                self.client.start(name)

    def shutdown(self) -> list[Ended]:
        """Stop everything in order, end supervisord, and return once no process is left: those it had to end."""
        killed = []
        if self.client.is_up():
            for name in _stopping_order(self.client.programs()):
                self.stop(name)
            self._end_daemon()
        elif self.client.is_silent():
            killed = self._kill_daemon()
        return killed + [ended for name in self._known_states() for ended in self._clear(name)]

    def _end_daemon(self) -> None:
        daemon = processes.read(self.client.pid())
        self.client.shutdown()
        if daemon is not None and not _within(DAEMON_TIMEOUT_S, lambda: not processes.alive(daemon)):
            raise SetupError(f"supervisord (process {daemon.pid}) does not end; see logs/supervisord.log")

    def _kill_daemon(self) -> list[Ended]:
        """One that stands still would start everything again when it goes on; its wrappers end what they look after."""
        text = self.places.pid_file.read_text().strip() if self.places.pid_file.exists() else ""
        daemon = processes.read(int(text)) if text.isdigit() else None
        command = processes.command_line(daemon.pid) if daemon is not None else ""
        if daemon is None or str(self.places.configuration) not in command:
            raise SetupError("a supervisord of this home does not answer, and nobody knows its process; see `ps`")
        processes.send(daemon, signal.SIGKILL)
        return [Ended("supervisord", daemon.pid, command)]

    def _clear(self, name: str) -> list[Ended]:
        """End what a service left; its wrapper, where supervisord was killed, is given time to do it itself."""
        ended = []
        if not _within(ORPHANED_WRAPPER_S, lambda: not wrapper_lives(self.places.states, name)):
            wrapper = processes.read(read_state(self.places.states, name).wrapper_pid)
            command = processes.command_line(wrapper.pid) if wrapper is not None else ""
            if wrapper is not None and f"marketflow.services.wrapper {name} " in command:
                processes.send(wrapper, signal.SIGKILL)
                ended.append(Ended(name, wrapper.pid, command))
        run = read_state(self.places.states, name).run
        found = processes.end(run) if run is not None else []
        return ended + [Ended(name, process.pid, command) for process, command in found]

    def _known_states(self) -> list[str]:
        return sorted(path.stem for path in self.places.states.glob("*.lock"))

    # one service

    def status(self) -> dict[str, ServiceStatus]:
        """Every service supervisord manages; StackDownError when it does not run."""
        now = time.time()
        return {
            name: _status(program, read_state(self.places.states, name), now)
            for name, program in self.client.programs().items()
        }

    def start(self, name: str) -> bool:
        """Start a service with its present definition; False when it was started already."""
        definition = self.definitions.get(name)
        if definition is None:
            raise UnknownServiceError(f"no service {name!r}; there are {', '.join(self.definitions)}")
        program = self.client.program(name)
        if program is not None and program.statename in ("RUNNING", "STARTING", "BACKOFF"):
            return False
        supervisor_files.write(self.places, self.definitions.values())
        added, changed, _ = self.client.reread()
        if name in added:
            self.client.add(name)
        elif name in changed:
            self._replace(name, keep=True, restart=False)
        return self.client.start(name)

    def stop(self, name: str) -> bool:
        """Stop a service and wait until its last process has ended; False when it was stopped already."""
        if self.client.program(name) is None:
            raise UnknownServiceError(f"no service {name!r}; there are {', '.join(self.client.programs())}")
        acted = False

        def stopped() -> bool:
            # between an exit and the restart there is nothing to stop yet: ask again
            nonlocal acted
            program = self.client.program(name)
            if program is None or program.statename in ("STOPPED", "FATAL"):
                return True
            if program.statename != "STOPPING":
                acted = self.client.stop(name) or acted
            return False

        if not _within(LONGEST_STOP_S, stopped):
            raise ServiceError(f"{name} did not stop within {LONGEST_STOP_S:.0f} s; see `marketflow logs {name}`")
        self._forget_failures(name)
        return acted

    def _forget_failures(self, name: str) -> None:
        """A stop clears the slate. A wrapper that was stopped as it began did not come to that."""
        handle = take_lock(self.places.states, name) if self.places.states.exists() else None
        if handle is None:
            return
        state = read_state(self.places.states, name)
        if state.failures or state.crashes:
            write_state(self.places.states, name, state.with_changes(failures=0, crashes=()))
        os.close(handle)

    def restart(self, name: str) -> None:
        """Stop it if it runs, then start it with its present definition."""
        if self.client.program(name) is not None:
            self.stop(name)
        self.start(name)

    def discard(self, name: str) -> None:
        """Stop a service that has no definition any more, and have supervisord forget it."""
        if self.client.program(name) is not None:
            self._replace(name, keep=False, restart=False)

    def logs(self, name: str, lines: int = 100) -> list[str]:
        """The last lines it wrote, oldest first, across the rotation of its log."""
        path = self.places.log(name)
        found: list[str] = []
        for number in range(supervisor_files.LOG_BACKUPS + 1):
            part = path if number == 0 else path.with_name(f"{path.name}.{number}")
            if len(found) < lines and part.exists():
                found = part.read_text(errors="replace").splitlines() + found
        if not found and name not in self.definitions:
            raise UnknownServiceError(f"no service {name!r}; there are {', '.join(self.definitions)}")
        return found[-lines:] if lines > 0 else []


def _stopping_order(names: Iterable[str]) -> list[str]:
    """First, others, last."""
    known = {name: place for place, name in enumerate(FIRST_TO_STOP)}
    known |= {name: 1000 + place for place, name in enumerate(LAST_TO_STOP)}
    return sorted(names, key=lambda name: (known.get(name, 500), name))


_STATE_OF_PHASE: dict[str, ServiceState] = {
    "starting": "starting",
    "waiting": "starting",
    "backoff": "backoff",
    "running": "running",
    "stopping": "running",
    "ended": "backoff",
}


def _status(program: ProgramInfo, state: State, now: float) -> ServiceStatus:
    """What supervisord says of the wrapper, and the wrapper of its service."""
    if program.statename in ("RUNNING", "STARTING", "STOPPING"):
        if state.wrapper_pid != program.wrapper_pid:
            began, crashes = _moment(program.began), _crashes(state)
            return ServiceStatus(program.name, "starting", since=began, detail="the wrapper starts", crashes=crashes)
        phase = _STATE_OF_PHASE[state.phase]
        return ServiceStatus(
            name=program.name,
            state=phase,
            pid=state.pid or None,
            since=_moment(state.since),
            uptime_s=max(0.0, now - state.since) if phase == "running" else None,
            detail=state.detail,
            configuration_hash=state.configuration or None,
            crashes=_crashes(state),
        )
    states: dict[str, ServiceState] = {"EXITED": "backoff", "BACKOFF": "backoff", "FATAL": "failed"}
    states["STOPPED"] = "stopped"
    ended = program.statename == "STOPPED" or not program.began
    return ServiceStatus(
        name=program.name,
        state=states.get(program.statename, "unknown"),
        since=_moment(program.ended) if program.ended else None,
        detail=state.detail if program.began else "not started",
        crashes=() if ended else _crashes(state),
    )


def _crashes(state: State) -> tuple[datetime, ...]:
    return tuple(_moment(at) for at in state.crashes)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


__all__ = ["Applied", "Ended", "StackDownError", "SupervisorBackend"]
