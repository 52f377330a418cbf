"""The watch beside a real supervisord: what is killed is told of by an HTTP POST, and so is its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketflow.quality import watch as module
from marketflow.quality.watch import Watch
from marketflow.services.state import read_state
from marketflow.services.supervisor import SupervisorBackend
from marketflow.settings import load
from marketflow.stack.servers import free_ports
from tests.integration.services_stage import SLEEPER, Stage, eventually
from tests.receiver import Receiver, receiver


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as running:
        yield running


@pytest.fixture
def watch(tmp_path: Path, hook: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Services alpha and beta, and a PostgreSQL that does not answer: alerts may not depend on it."""
    monkeypatch.setattr(module, "WELL_AFTER_S", 2.0)
    stage = Stage(tmp_path)
    settings = load(home=tmp_path, alert_url=hook.url, postgres_port=free_ports(1)[0])
    services = SupervisorBackend(settings, [stage.definition(name, SLEEPER) for name in ("alpha", "beta")])
    services.launch()
    try:
        for name in ("alpha", "beta"):
            run_of(services, name)
        yield Watch(settings, services)
    finally:
        services.shutdown()
    assert stage.processes() == {}
    assert stage.machinery() == {}


def run_of(services: SupervisorBackend, name: str, *, after: int | None = None) -> int:
    """Process id of a run of a service, another one than `after`."""

    def pid() -> int | None:
        status = services.status()[name]
        return status.pid if status.state == "running" and status.pid != after else None

    return int(eventually(pid, f"{name} to run"))


def said(hook: Receiver) -> list[tuple[str, str]]:
    return [(body["status"], body["key"]) for body in hook.bodies]


def look_until(watch: Watch, hook: Receiver, count: int) -> None:
    def looked() -> bool:
        watch.look()
        return len(hook.bodies) >= count

    eventually(looked, f"{count} messages")


def test_a_killed_service_is_told_of_once_and_again_when_it_is_well(watch: Watch, hook: Receiver) -> None:
    watch.look()
    first = run_of(watch.services, "alpha")
    os.kill(first, signal.SIGKILL)
    run_of(watch.services, "alpha", after=first)
    look_until(watch, hook, 2)
    watch.look()
    assert said(hook) == [("firing", "ended:alpha"), ("resolved", "ended:alpha")]
    assert "ended by signal 9" in hook.bodies[0]["cause"]
    assert hook.bodies[0]["command"] == "marketflow logs alpha"


def test_a_killed_wrapper_is_told_of_too(watch: Watch, hook: Receiver) -> None:
    watch.look()
    first = run_of(watch.services, "beta")
    os.kill(read_state(watch.services.places.states, "beta").wrapper_pid, signal.SIGKILL)
    run_of(watch.services, "beta", after=first)
    look_until(watch, hook, 1)
    assert said(hook)[0] == ("firing", "ended:beta")
    assert "its wrapper was killed" in hook.bodies[0]["cause"]


def test_what_a_person_does_is_no_alert(watch: Watch, hook: Receiver) -> None:
    watch.look()
    first = run_of(watch.services, "alpha")
    watch.services.restart("alpha")
    run_of(watch.services, "alpha", after=first)
    watch.services.stop("beta")
    watch.look()
    assert said(hook) == []
    assert watch.services.status()["beta"].state == "stopped"


def test_two_services_that_end_at_once_are_two_alerts(watch: Watch, hook: Receiver) -> None:
    watch.look()
    ids = {name: run_of(watch.services, name) for name in ("alpha", "beta")}
    for pid in ids.values():
        os.kill(pid, signal.SIGKILL)
    for name, pid in ids.items():
        run_of(watch.services, name, after=pid)
    look_until(watch, hook, 4)
    assert sorted(said(hook)) == sorted(
        (status, f"ended:{name}") for status in ("firing", "resolved") for name in ("alpha", "beta")
    )
