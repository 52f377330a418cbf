"""Ports of one machine: the default where it is free, another where it is not, recorded in `<home>/stack.json`."""

from __future__ import annotations

import json
import os
import socket

import psutil

from marketflow.settings import Settings
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


def record(settings: Settings) -> list[str]:
    """Choose every port and write stack.json, while the stack is down. Returns a line for each that had to move.

    A port that the environment sets is used as it is; if somebody holds it, the line says who and the port stays,
    so that the server's own error is not the first the user hears of it.
    """
    path = settings.home / "stack.json"
    recorded = json.loads(path.read_text()) if path.exists() else {}
    chosen: dict[str, int] = {}
    notes: list[str] = []
    for name in PORT_FIELDS:
        port = int(getattr(settings, name))
        if not is_free(port) and f"MARKETFLOW_{name}".upper() in os.environ:
            notes.append(f"{name} {port} is held by {holder(port)}, and MARKETFLOW_{name.upper()} asks for it")
        elif not is_free(port) or port in chosen.values():
            moved = _free_near(port, set(chosen.values()))
            notes.append(f"{name} {port} is held by {holder(port)}: using {moved}")
            port = moved
        chosen[name] = port
    write_private(path, json.dumps(recorded | chosen, indent=1))
    return notes
