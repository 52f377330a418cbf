"""One round over services: what a person asked for, what must be started or stopped, and what is wrong. No Airflow.

A round runs every minute, so it writes to ops.service_event only when something was done or changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    from marketflow.services.backend import ServiceBackend, ServiceStatus
    from marketflow.services.definitions import ServiceDefinition
    from marketflow.services.desired import Action, Event

NO_ACTION = "none"
ACTIONS = (NO_ACTION, "start", "stop", "restart")
# A service that fails at once does so within a few seconds; one that waits for another is `starting` for longer.
START_PATIENCE_S = 20.0
SETTLED_S = 3.0
# how long a service that was down must run before it is said to be well
WELL_AFTER_S = 30.0
# a service that waits for another is running some time after the event that tells of its start
STARTING = timedelta(minutes=2)
_DONE: Mapping[str, Event] = {
    "start": "started",
    "stop": "stopped",
    "discard": "stopped",
    "restart": "restarted",
}
WRONG_EVENTS: tuple[Event, ...] = ("down", "flapping", "hung", "silent", "behind")  # the worst first
_ENDED_EVENTS = ("started", "stopped", "restarted", "healthy")


@dataclass(frozen=True)
class Request:
    """What a person filled into the form. `once`: a run that has done it does not do it again when it is cleared."""

    service: str
    action: str
    reason: str
    asked_by: str
    once: bool = False

    def check(self, names: Sequence[str]) -> None:
        """A choice that means nothing is refused rather than ignored."""
        if self.action not in ACTIONS:
            raise ValueError(f"action {self.action!r} is none of {', '.join(ACTIONS)}")
        if self.action != NO_ACTION and self.service not in names:
            raise ValueError(f"service {self.service!r} is none of {', '.join(names)}")


@dataclass(frozen=True)
class Condition:
    """Something wrong with a service that should run, as a sentence."""

    service: str
    event: Event
    detail: str


@dataclass
class Round:
    """The services of one Dag in one run.

    `services` are the names that the Dag answers for, whether the configuration has them or not. `failures` has a
    sentence a service, with which the caller fails its task. `unsure` are those of which nobody can say yet that they
    are well: they were started in this round, or have said nothing since their start.
    """

    connection: psycopg.Connection[Any]
    backend: ServiceBackend
    definitions: Mapping[str, ServiceDefinition]
    run_id: str
    services: Sequence[str] = ()
    failures: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)

    def ask(self, request: Request) -> None:
        """Write down a person's choice, which lasts until the next one; a restart is done at once."""
        from marketflow.services.desired import set_desired

        request.check(tuple(self.definitions))
        if request.action == NO_ACTION:
            return
        if request.once and self._done_in_this_run(request.service, _DONE[request.action]):
            return  # and whoever has chosen since has the last word
        wanted = "stopped" if request.action == "stop" else "running"
        set_desired(self.connection, request.service, wanted, request.asked_by)
        if request.action == "restart":
            self.restart(request.service, f"{request.asked_by} asked: {request.reason or 'no reason given'}")

    def reconcile(self, request: Request | None = None) -> list[Action]:
        """Start, stop and restart until what runs is what should run; returns what was done."""
        from marketflow.services.desired import read_desired, reconcile

        found = reconcile(read_desired(self.connection), self.backend.status(), self.definitions.values())
        for action in found:
            asked = request is not None and request.action != NO_ACTION and request.service == action.service
            reason = f"{action.reason} Reason: {request.reason}" if asked and request and request.reason else None
            self._act(action.service, action.kind, reason or action.reason)
        return found + self._discard()

    def _discard(self) -> list[Action]:
        """Stop what the configuration has no longer: a source that was taken out has no definition to compare with."""
        from marketflow.services.desired import Action

        gone = [
            Action(name, "stop", f"It is {status.state}, but the configuration has it no longer.")
            for name, status in self.backend.status().items()
            if name in self.services and name not in self.definitions
        ]
        for action in gone:
            self._act(action.service, "discard", action.reason)
        return gone

    def restart(self, service: str, reason: str) -> None:
        """Restart now."""
        self._act(service, "restart", reason)

    def _act(self, service: str, kind: str, reason: str) -> None:
        from marketflow.errors import MarketflowError
        from marketflow.services.backend import ServiceStatus, StackDownError
        from marketflow.services.desired import record_event

        try:
            getattr(self.backend, kind)(service)
            if kind == "restart":
                # whatever comes of it: a task that is tried again must not cut the pause of what fails once more
                record_event(self.connection, service, "restarted", reason, run_id=self.run_id)
            if kind in ("start", "restart"):
                self.unsure.add(service)
                self._wait_until_started(service)
        except StackDownError:
            raise
        except MarketflowError as error:
            # the others get their turn; the run fails with every sentence at its end
            self.failures[service] = f"{service}: could not {kind} it: {error}"
            # which may not know it yet
            status = self.backend.status().get(service, ServiceStatus(service, "stopped"))
            self.note({service: Condition(service, "down", str(error))}, {service: status})
            return
        if kind != "restart":
            record_event(self.connection, service, _DONE[kind], reason, run_id=self.run_id)

    def _wait_until_started(self, service: str) -> None:
        """Until it has run for some seconds, or waits for something it needs; ServiceError where it fails."""
        from marketflow.services.backend import ServiceError

        deadline = time.monotonic() + START_PATIENCE_S
        while True:
            status = self.backend.status()[service]
            if status.state in ("backoff", "failed"):
                raise ServiceError(f"it is {status.state}: {status.detail}; its last words: {self.last_words(service)}")
            if status.state == "running" and (status.uptime_s is None or status.uptime_s >= SETTLED_S):
                return
            if time.monotonic() > deadline:
                return  # `starting`: seen as down by the next rounds for as long as it waits
            time.sleep(0.5)

    def last_words(self, service: str) -> str:
        """The last line it logged itself; what its wrapper says of its end stands in its status."""
        own = f" wrapper of {service}: "
        lines = [line for line in self.backend.logs(service, 50) if line.strip() and own not in line]
        return lines[-1].strip() if lines else "nothing"

    def should_run(self) -> dict[str, ServiceStatus]:
        """Services that should run by now, with how they are; one that a person stopped is not among them."""
        from marketflow.services.backend import ServiceStatus
        from marketflow.services.desired import read_desired

        desired, statuses = read_desired(self.connection), self.backend.status()
        names = [
            name
            for name, definition in self.definitions.items()
            if (desired[name].desired == "running" if name in desired else definition.autostart)
        ]
        return {name: statuses.get(name, ServiceStatus(name, "stopped")) for name in names}

    def down(self, statuses: Mapping[str, ServiceStatus]) -> list[Condition]:
        """Those that should run and do not, or not for long. One that fails again and again fails the run.

        A flapping one is left to its wrapper, whose pauses grow: a start from here would begin them anew. It fails
        every run until it is over, so that whoever is told of the run is told once.
        """
        from marketflow.services.flapping import why_flapping

        found = []
        for name, status in statuses.items():
            flapping = why_flapping(status, datetime.now(UTC))
            if flapping:
                detail = f"{flapping} Its last words: {self.last_words(name)}"
                found.append(Condition(name, "flapping", detail))
                self.failures.setdefault(name, f"{name}: {detail}")
                continue
            if status.state == "running":
                continue
            waited_s = (datetime.now(UTC) - status.since).total_seconds() if status.since else 0.0
            if status.state == "starting" and waited_s < 60:
                continue
            detail = f"It should run and is {status.state}{f': {status.detail}' if status.detail else ''}."
            if status.state in ("backoff", "failed", "stopped"):
                detail += f" Its last words: {self.last_words(name)}"
                self.failures.setdefault(name, f"{name}: {detail}")
            found.append(Condition(name, "down", detail))
        return found

    def note(self, worst: Mapping[str, Condition], statuses: Mapping[str, ServiceStatus]) -> None:
        """Write an event for every service whose condition is another one than its last event said.

        One that is started again and again is not well in between: it must have run for a while.
        """
        from marketflow.services.desired import record_event

        for service, status in statuses.items():
            condition, last = worst.get(service), self.last_event(service)
            if condition is not None and last != condition.event:
                record_event(self.connection, service, condition.event, condition.detail, run_id=self.run_id)
            elif condition is None and service in self.unsure:
                continue
            elif condition is None and service not in self.failures and last not in (None, *_ENDED_EVENTS):
                if status.state != "running" or (last == "down" and (status.uptime_s or 0.0) < WELL_AFTER_S):
                    continue
                record_event(self.connection, service, "healthy", f"It was {last} and is well.", run_id=self.run_id)
            elif condition is None and service not in self.failures:
                self._note_start_of_others(service, status)

    def note_anew(self, condition: Condition) -> None:
        """Write that a condition begins now, although the last event says the same."""
        from marketflow.services.desired import record_event

        record_event(self.connection, condition.service, condition.event, condition.detail, run_id=self.run_id)

    def well(self, worst: Mapping[str, Condition], statuses: Mapping[str, ServiceStatus]) -> list[str]:
        """Whose alert is over: those that run well, and those that are not to run at all."""
        # one that was down and is not well for long enough yet, or that waits for what it needs, is neither told of
        # again nor over
        running = [
            one
            for one, status in statuses.items()
            if status.state == "running"
            and one not in worst
            and one not in self.unsure
            and self.last_event(one) not in WRONG_EVENTS
        ]
        at_rest = {*self.services, *self.definitions} - statuses.keys() - self.failures.keys()
        return running + sorted(at_rest)

    def _note_start_of_others(self, service: str, status: ServiceStatus) -> None:
        """A crash is mended by the supervisor within seconds, before any round can see it: its trace is a new start."""
        from marketflow.services.desired import record_event

        if status.state != "running" or status.since is None:
            return
        row = self.connection.execute(
            "select max(at), max(at) filter (where event in ('started', 'restarted')) from ops.service_event "
            "where service = %s",
            (service,),
        ).fetchone()
        noted, started = row or (None, None)
        if (noted and status.since <= noted) or (started and status.since <= started + STARTING):
            return
        detail = f"It runs since {status.since:%Y-%m-%d %H:%M:%S} UTC, and no round started it: "
        detail += "its supervisor did, after its process ended, or `make up`."
        record_event(self.connection, service, "restarted" if noted else "started", detail, run_id=self.run_id)

    def last_event(self, service: str) -> str | None:
        """What was last written about a service."""
        row = self.connection.execute(
            "select event from ops.service_event where service = %s order by at desc limit 1", (service,)
        ).fetchone()
        return row[0] if row else None

    def _done_in_this_run(self, service: str, event: str) -> bool:
        row = self.connection.execute(
            "select 1 from ops.service_event where service = %s and event = %s and run_id = %s",
            (service, event, self.run_id),
        ).fetchone()
        return row is not None


def worst_of(conditions: Iterable[Condition]) -> dict[str, Condition]:
    """One condition a service: the worst kind, with every sentence."""
    found: dict[str, list[Condition]] = {}
    for condition in conditions:
        found.setdefault(condition.service, []).append(condition)
    return {
        service: Condition(
            service,
            min((one.event for one in several), key=WRONG_EVENTS.index),
            " ".join(one.detail for one in sorted(several, key=lambda one: WRONG_EVENTS.index(one.event))),
        )
        for service, several in found.items()
    }
