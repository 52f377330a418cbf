"""What a service is, as data: one definition per service, the same for every backend."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Literal

from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import INHERITED

Group = Literal["infrastructure", "feed", "stream", "catalog", "airflow", "watch"]


@dataclass(frozen=True)
class ServiceDefinition:
    """One service: how it is started, what it waits for and how it is stopped.

    `wait_for` holds `host:port` or absolute paths. `stop_scope` says whether the whole process group gets the stop
    signal or its first process alone, which then ends the others itself. `priority` orders starts, lowest first.
    The environment is whole: nothing else is inherited.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)
    group: Group
    wait_for: tuple[str, ...] = ()
    stop_signal: Literal["INT", "TERM"] = "TERM"
    stop_scope: Literal["group", "leader"] = "group"
    stop_wait_s: float = 20.0
    user: str | None = None
    directory: str = str(PROJECT_FOLDER)
    autostart: bool = True
    priority: int = 50


def configuration_hash(definition: ServiceDefinition) -> str:
    """Differs when a restart would change what the service does. Half a SHA-256: nobody reads a secret out of it."""
    environment = {name: value for name, value in definition.environment.items() if name not in INHERITED}
    parts = (
        definition.name,
        definition.command,
        sorted(environment.items()),
        definition.wait_for,
        definition.stop_signal,
        definition.stop_scope,
        definition.stop_wait_s,
        definition.user,
        definition.directory,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
