"""Service `watch`: tells of services that end by themselves and of an Airflow that is not well.

    python -m marketflow.quality.watch

supervisord starts a service again within seconds, so a killed scheduler, broker or Spark driver would leave no trace
but a line in a log; and a scheduler that stays away runs no Dag that could tell of it. This process needs neither
Airflow nor PostgreSQL. It reads what the services' wrappers write down.

- `ended:NAME`: the service ended without being asked to. It is over once it has run for half a minute, or is stopped
  by hand; one that fails again and again is one alert.
- `airflow:PART`: the API server says for two minutes that a part is not well, or does not answer.
- `layer:…`: late layers, every five minutes as long as a part of Airflow is not well, as Dag quality does otherwise.
- `settings:wrong`: a setting that cannot be, such as a slip of the pen in `.env`: no Dag's task can begin then, nor say
  so. This process goes on with those that it began with.

Once a minute it also says again what is over, where the target of alerts did not take the word: docs/alerts.md.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from marketflow import settings as configuration
from marketflow.alerts import desk
from marketflow.alerts.message import Alert
from marketflow.errors import MarketflowError
from marketflow.services.backend import ServiceStatus, StackDownError
from marketflow.services.state import State, read_state
from marketflow.services.supervisor import SupervisorBackend
from marketflow.settings import Settings
from marketflow.stack import airflow
from marketflow.stack.backend import backend
from marketflow.stack.definitions import WATCH_SETTINGS

LOOK_EVERY_S = 10.0
# as the wrapper has it: by then it forgets failures
WELL_AFTER_S = 30.0
AIRFLOW_PATIENCE_S = 120.0
LATENESS_EVERY_S = 300.0
REPEAT_EVERY_S = 60.0
FAMILY = "ended:"
AIRFLOW_FAMILY = "airflow:"
SETTINGS_FAMILY = "settings:"


@dataclass
class Memory:
    """What was seen so far, kept in a file so that an end during this process's own absence is told of too.

    `crashes` is service → when it last ended by itself, seconds since the epoch, None before the first look; `pending`
    those that are not well again yet.
    """

    crashes: dict[str, float] | None = None
    pending: list[str] = field(default_factory=list)


def read_memory(path: Path) -> Memory:
    """The memory of an earlier process; an empty one where there is none."""
    try:
        return Memory(**json.loads(path.read_text()))
    except FileNotFoundError:
        return Memory()


def write_memory(path: Path, memory: Memory) -> None:
    """Replace the file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(asdict(memory)))
    temporary.replace(path)


def ended(statuses: Mapping[str, ServiceStatus], states: Mapping[str, State], memory: Memory) -> list[Alert]:
    """The services that ended by themselves and are not well yet; moves the memory on.

    Each end is in the answer of one look at least, however fast the service was well again. What happened before the
    first look of all is not told.
    """
    first = memory.crashes is None
    seen = {} if memory.crashes is None else memory.crashes
    alerts, pending = [], []
    for name, status in statuses.items():
        state = states[name]
        last = state.crashes[-1] if state.crashes else 0.0
        fresh = not first and last > seen.get(name, 0.0)
        well = status.state == "stopped" or (status.state == "running" and (status.uptime_s or 0.0) >= WELL_AFTER_S)
        seen[name] = max(last, seen.get(name, 0.0))
        if fresh or (name in memory.pending and not well):
            pending.append(name)
            alerts.append(_ended(name, state, status))
    memory.crashes, memory.pending = seen, pending
    return alerts


def _ended(name: str, state: State, status: ServiceStatus) -> Alert:
    at = datetime.fromtimestamp(state.crashes[-1], UTC) if state.crashes else None
    when = f"At {at:%Y-%m-%d %H:%M:%S} UTC: {state.crash}. " if at else ""
    now = f"It is {status.state}{f' ({status.detail})' if status.detail else ''}."
    return Alert(
        key=f"{FAMILY}{name}",
        title=f"{name} ended by itself",
        cause=when + now,
        command=f"marketflow logs {name}",
        more={"service": name},
    )


@dataclass
class Patience:
    """Since when each part of Airflow is not well, by a clock that only goes forward."""

    since: dict[str, float] = field(default_factory=dict)

    def unwell(self, parts: Mapping[str, str], now: float) -> list[Alert]:
        """The parts that have not been well for two minutes."""
        sick = {part: status for part, status in parts.items() if status != "healthy"}
        self.since = {part: self.since.get(part, now) for part in sick}
        return [
            Alert(
                key=f"{AIRFLOW_FAMILY}{part}",
                title=f"Airflow's {part.replace('_', ' ')} is {status}",
                cause=f"So it has been for {now - self.since[part]:.0f} s. The data goes on; no Dag may run.",
                command=f"marketflow logs {_service(part)}",
            )
            for part, status in sick.items()
            if now - self.since[part] >= AIRFLOW_PATIENCE_S
        ]


def _service(part: str) -> str:
    """Of a part of Airflow, as its health answer calls it; its metadata are in marketflow's PostgreSQL."""
    return "postgres" if part == "metadatabase" else f"airflow-{part.replace('_', '-')}"


def wrong_settings() -> list[Alert]:
    """What is wrong with the settings as they would be read now."""
    try:
        configuration.load_as_a_new_process_would(WATCH_SETTINGS)
    except MarketflowError as error:
        return [
            Alert(
                key=f"{SETTINGS_FAMILY}wrong",
                title="a setting is wrong: no Dag and no command can begin",
                cause=str(error),
                command="marketflow status",
            )
        ]
    return []


class Watch:
    """One process's looks; `say` gets every alert that was sent, ended or could not be."""

    def __init__(self, settings: Settings, services: SupervisorBackend) -> None:
        """The home's settings and its services."""
        self.settings, self.services = settings, services
        self.path = settings.home / "alerts" / "watch.json"
        self.memory = read_memory(self.path)
        self.patience = Patience()
        self.lateness_at = self.repeated_at = 0.0
        # by a process before this one, perhaps
        self.settings_wrong = True

    def look(self) -> None:
        """Look once and tell."""
        try:
            statuses = self.services.status()
        except StackDownError:
            return  # it is being started or stopped, and this process with it
        states = {name: read_state(self.services.places.states, name) for name in statuses}
        alerts = ended(statuses, states, self.memory)
        self._settle(FAMILY, alerts)
        # only after it was told: a process that is killed in between tells it again, which changes nothing
        write_memory(self.path, self.memory)
        airflow_runs = any(one.state != "stopped" for name, one in statuses.items() if name.startswith("airflow-"))
        parts = airflow.health(self.settings) if airflow_runs else {}
        sick = self.patience.unwell(parts, time.monotonic())
        # an API that does not answer says nothing of the other parts, and one that is unwell again is not over
        well = [f"{AIRFLOW_FAMILY}{part}" for part, status in parts.items() if status == "healthy"]
        self._settle(AIRFLOW_FAMILY, sick, well if airflow_runs else None)
        if sick and time.monotonic() - self.lateness_at >= LATENESS_EVERY_S:
            # a hundred megabytes of libraries, which a process that only waits does not hold
            from marketflow.quality.run import tell_of_lateness

            tell_of_lateness(self.settings, say=_say)
            self.lateness_at = time.monotonic()

        wrong = wrong_settings()
        if wrong or self.settings_wrong:
            self._settle(SETTINGS_FAMILY, wrong)
        self.settings_wrong = bool(wrong)
        if time.monotonic() - self.repeated_at >= REPEAT_EVERY_S:
            for outcome in desk.repeat_ends(self.settings):
                _say(str(outcome))
            self.repeated_at = time.monotonic()

    def _settle(self, family: str, alerts: list[Alert], well: list[str] | None = None) -> None:
        for outcome in desk.settle(self.settings, family, alerts, well=well):
            if outcome.what not in ("nothing", "known"):
                _say(str(outcome))


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {line}", flush=True)


def main() -> int:
    """Look until asked to stop."""
    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    try:
        settings = configuration.load()
        watch = Watch(settings, backend(settings))
    except MarketflowError as error:
        print(f"watch: {error}", file=sys.stderr)
        return error.exit_code
    _say(f"watches {len(watch.services.definitions)} services every {LOOK_EVERY_S:g} s")
    while True:
        watch.look()
        if signal.sigtimedwait(stops, LOOK_EVERY_S) is not None:
            return 0


if __name__ == "__main__":
    sys.exit(main())
