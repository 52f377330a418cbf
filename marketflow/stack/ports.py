"""Ports of one machine: the default where it is free, another where it is not, recorded in `<home>/stack.json`."""

from __future__ import annotations

import json
import os
import socket

import psutil

from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.settings_words import dotenv_file
from marketflow.stack.secrets import write_private

PORT_FIELDS = tuple(name for name in Settings.model_fields if name.endswith("_port"))


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """Who listens on a port: `pid 123 (java)`, or `another user's process`."""
    for connection in psutil.net_connections("tcp"):
        local = connection.laddr
        if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
            return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "another user's process"


def _free_near(port: int, taken: set[int]) -> int:
    return next(candidate for candidate in range(port + 100, 65_000) if candidate not in taken and is_free(candidate))


def _asked_for() -> dict[str, str]:
    """Fields of ports that somebody set, and where: stack.json's ports rank below these, so they cannot be moved."""
    places = ((".env", dotenv_file()), ("the environment", os.environ))
    names = {f"MARKETFLOW_{field}".upper(): field for field in PORT_FIELDS}
    return {names[name]: place for place, given in places for name, value in given.items() if name in names and value}


def record(settings: Settings) -> list[str]:
    """Choose every port and write stack.json, while the stack is down. Returns a line for each that had to move.

    Raises:
        ConfigurationError: a port that the environment or .env sets is held by somebody, or set twice.
    """
    path = settings.home / "stack.json"
    recorded = json.loads(path.read_text()) if path.exists() else {}
    asked = _asked_for()
    chosen: dict[int, str] = {}
    notes: list[str] = []
    for name in sorted(PORT_FIELDS, key=lambda field: field not in asked):
        port = int(getattr(settings, name))
        other = chosen.get(port)
        if name in asked:
            variable = f"MARKETFLOW_{name.upper()} of {asked[name]}"
            if other is not None:
                raise ConfigurationError(f"{variable}: {port} is MARKETFLOW_{other.upper()} too; each needs its own")
            if not is_free(port):
                raise ConfigurationError(f"{variable}: {port} is held by {holder(port)}; end that, or set another port")
        elif other is not None or not is_free(port):
            moved = _free_near(port, {*chosen, *(int(getattr(settings, field)) for field in PORT_FIELDS)})
            why = f"is {other}" if other is not None else f"is held by {holder(port)}"
            notes.append(f"{name} {port} {why}: using {moved}")
            port = moved
        chosen[port] = name
    write_private(path, json.dumps(recorded | {name: chosen_port for chosen_port, name in chosen.items()}, indent=1))
    return notes
