"""What follows from what is wanted and what is."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

from marketflow.services.backend import ServiceState, ServiceStatus
from marketflow.services.definitions import ServiceDefinition, configuration_hash
from marketflow.services.desired import Action, Desired, DesiredState, reconcile

SET_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def definition(name: str, priority: int = 50, *, autostart: bool = True) -> ServiceDefinition:
    return ServiceDefinition(name, ("run", name), {}, "feed", autostart=autostart, priority=priority)


def wanted(name: str, desired: DesiredState, set_by: str = "configuration") -> Desired:
    return Desired(name, desired, set_by, SET_AT)


def kinds(actions: list[Action]) -> list[tuple[str, str]]:
    return [(action.service, action.kind) for action in actions]


def test_every_pair_of_wanted_and_present_has_its_action() -> None:
    expected: dict[tuple[DesiredState, ServiceState], str | None] = {
        ("running", "running"): None,
        ("running", "starting"): None,
        # the wrapper tries again by itself; a start on top would only cut its pause
        ("running", "backoff"): None,
        ("running", "stopped"): "start",
        ("running", "failed"): "start",
        ("running", "unknown"): None,
        ("stopped", "running"): "stop",
        ("stopped", "starting"): "stop",
        ("stopped", "backoff"): "stop",
        ("stopped", "stopped"): None,
        ("stopped", "failed"): None,
        ("stopped", "unknown"): None,
    }
    states: tuple[ServiceState, ...] = ("running", "starting", "backoff", "stopped", "failed", "unknown")
    choices: tuple[DesiredState, ...] = ("running", "stopped")
    found = {}
    for desired, state in product(choices, states):
        actions = reconcile({"a": wanted("a", desired)}, {"a": ServiceStatus("a", state)}, [definition("a")])
        found[desired, state] = actions[0].kind if actions else None

    assert found == expected


def test_a_service_nobody_decided_about_follows_its_definition() -> None:
    services = [definition("a"), definition("b", autostart=False)]

    assert kinds(reconcile({}, {}, services)) == [("a", "start")]
    running = {name: ServiceStatus(name, "running") for name in ("a", "b")}
    assert kinds(reconcile({}, running, services)) == [("b", "stop")]


def test_a_changed_configuration_restarts_what_runs_and_an_unknown_one_does_not() -> None:
    service = definition("a")
    same, other = configuration_hash(service), "0" * 32

    def asked(state: ServiceState, started_with: str | None) -> list[tuple[str, str]]:
        return kinds(reconcile({}, {"a": ServiceStatus("a", state, configuration_hash=started_with)}, [service]))

    assert asked("running", same) == []
    assert asked("running", other) == [("a", "restart")]
    assert asked("backoff", other) == [("a", "restart")]
    assert asked("running", None) == []
    assert asked("stopped", other) == [("a", "start")]


def test_stops_come_first_and_in_reverse_then_the_rest_in_starting_order() -> None:
    services = [definition("d", 40), definition("b", 20), definition("a", 10), definition("c", 30)]
    status = {"a": ServiceStatus("a", "running"), "c": ServiceStatus("c", "running")}
    desired = {"a": wanted("a", "stopped"), "c": wanted("c", "stopped")}

    assert kinds(reconcile(desired, status, services)) == [("c", "stop"), ("a", "stop"), ("b", "start"), ("d", "start")]


def test_services_without_a_given_definition_are_left_alone() -> None:
    status = {"airflow-scheduler": ServiceStatus("airflow-scheduler", "running")}

    assert reconcile({"postgres": wanted("postgres", "stopped")}, status, []) == []


def test_a_reason_is_a_sentence_that_names_who_and_since_when() -> None:
    (stop,) = reconcile({"a": wanted("a", "stopped", "ana")}, {"a": ServiceStatus("a", "running")}, [definition("a")])
    (start,) = reconcile({}, {"a": ServiceStatus("a", "failed", detail="exited with 3")}, [definition("a")])

    assert stop.reason == "It is running, but ana wants it stopped since 2026-03-01 12:00:00 UTC."
    assert start.reason == "It is failed (exited with 3), but configuration wants it running."
