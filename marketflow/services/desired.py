"""What should run, who said so, and what follows from it.

A service's definition says whether it runs by default. What a person (or a run that acts for one) asked for is kept
in `ops.service_desired` and outlives restarts, until it is handed back to the configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from marketflow.services.backend import ACTIVE_STATES, ServiceStatus
from marketflow.services.definitions import ServiceDefinition, configuration_hash

Connection = psycopg.Connection[Any]
DesiredState = Literal["running", "stopped"]
Event = Literal["started", "stopped", "restarted", "down", "flapping", "hung", "silent", "behind", "healthy"]
CONFIGURATION = "configuration"


@dataclass(frozen=True)
class Desired:
    """One row of ops.service_desired."""

    service: str
    desired: DesiredState
    set_by: str
    set_at: datetime
    configuration_hash: str | None = None


@dataclass(frozen=True)
class Action:
    """One thing to do to a service, and why, as a sentence."""

    service: str
    kind: Literal["start", "stop", "restart"]
    reason: str


def reconcile(
    desired: Mapping[str, Desired], status: Mapping[str, ServiceStatus], definitions: Iterable[ServiceDefinition]
) -> list[Action]:
    """What brings the services to what they should be: stops first, then restarts and starts in starting order.

    Only the given definitions are looked at, so that the caller chooses which services are its own. A service whose
    state is unknown is left alone: it may well run, and two of it would be worse than none.
    """
    ordered = sorted(definitions, key=lambda definition: definition.priority)
    found = [_action(one, desired.get(one.name), status.get(one.name)) for one in ordered]
    actions = [action for action in found if action is not None]
    stops = [action for action in reversed(actions) if action.kind == "stop"]
    return stops + [action for action in actions if action.kind != "stop"]


def _action(definition: ServiceDefinition, asked: Desired | None, status: ServiceStatus | None) -> Action | None:
    wanted = asked.desired if asked is not None else _default(definition)
    who = asked.set_by if asked is not None else CONFIGURATION
    since = f" since {asked.set_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if asked is not None else ""
    state = status.state if status is not None else "stopped"
    if state == "unknown":
        return None
    if wanted == "stopped":
        if state not in ACTIVE_STATES:
            return None
        return Action(definition.name, "stop", f"It is {state}, but {who} wants it stopped{since}.")
    if state not in ACTIVE_STATES:
        detail = f" ({status.detail})" if status is not None and status.detail else ""
        return Action(definition.name, "start", f"It is {state}{detail}, but {who} wants it running{since}.")
    started_with = status.configuration_hash if status is not None else None
    if started_with is not None and started_with != configuration_hash(definition):
        short = f"{started_with[:8]} to {configuration_hash(definition)[:8]}"
        return Action(definition.name, "restart", f"Its configuration changed from {short} since it was started.")
    return None


def _default(definition: ServiceDefinition) -> DesiredState:
    return "running" if definition.autostart else "stopped"


def read_desired(connection: Connection) -> dict[str, Desired]:
    """Every row, by service."""
    rows = connection.execute(
        "select service, desired, set_by, set_at, configuration_hash from ops.service_desired order by service"
    )
    return {row[0]: Desired(*row) for row in rows.fetchall()}


def set_desired(
    connection: Connection,
    service: str,
    desired: DesiredState,
    set_by: str,
    *,
    configuration_hash: str | None = None,
) -> None:
    """Record what someone wants. `set_by="configuration"` hands the service back to its default."""
    connection.execute(
        "insert into ops.service_desired (service, desired, set_by, set_at, configuration_hash) "
        "values (%s, %s, %s, now(), %s) on conflict (service) do update set desired = excluded.desired, "
        "set_by = excluded.set_by, set_at = excluded.set_at, "
        "configuration_hash = coalesce(excluded.configuration_hash, service_desired.configuration_hash)",
        (service, desired, set_by, configuration_hash),
    )


def set_defaults(connection: Connection, definitions: Iterable[ServiceDefinition]) -> None:
    """Write each definition's default, except where a person has chosen; services without a definition are forgotten.

    Only what differs is written, so that set_at stays the time of the last change.
    """
    definitions = tuple(definitions)
    for one in definitions:
        connection.execute(
            "insert into ops.service_desired as present (service, desired, set_by, set_at, configuration_hash) "
            "values (%s, %s, %s, now(), %s) on conflict (service) do update set desired = excluded.desired, "
            "set_at = excluded.set_at, configuration_hash = excluded.configuration_hash "
            "where present.set_by = excluded.set_by and (present.desired, present.configuration_hash) "
            "is distinct from (excluded.desired, excluded.configuration_hash)",
            (one.name, _default(one), CONFIGURATION, configuration_hash(one)),
        )
    names = [one.name for one in definitions]
    connection.execute(
        "delete from ops.service_desired where set_by = %s and service <> all(%s)", (CONFIGURATION, names)
    )


def record_event(
    connection: Connection,
    service: str,
    event: Event,
    detail: str,
    *,
    run_id: str | None = None,
    at: datetime | None = None,
) -> None:
    """Write down what happened to a service; the same event at the same time is written once."""
    connection.execute(
        "insert into ops.service_event (service, at, event, detail, run_id) "
        "values (%s, coalesce(%s, clock_timestamp()), %s, %s, %s) on conflict do nothing",
        (service, at, event, detail, run_id),
    )
