"""supervisord's XML-RPC interface over its socket: the few calls needed, with a time limit and readable errors."""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketflow.services.backend import ServiceError, StackDownError

BAD_NAME = 10
SHUTTING_DOWN = 6
ALREADY_STARTED = 60
NOT_RUNNING = 70
ALREADY_ADDED = 90
CALL_TIMEOUT_S = 10.0


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._path, self._timeout_s = path, timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        del host
        return _Connection(self._path, self._timeout_s)


@dataclass(frozen=True)
class ProgramInfo:
    """What supervisord says of one program, `statename` being one of its process states."""

    name: str
    statename: str
    wrapper_pid: int
    description: str
    began: float
    ended: float


class SupervisorClient:
    """Calls to one supervisord."""

    def __init__(self, socket_path: Path, timeout_s: float = CALL_TIMEOUT_S) -> None:
        self.socket_path = socket_path
        self._timeout_s = timeout_s

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = _Transport(str(self.socket_path), self._timeout_s)
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=transport)
        try:
            return getattr(proxy, f"supervisor.{method}")(*arguments)
        except (FileNotFoundError, ConnectionError, http.client.HTTPException) as error:
            raise StackDownError(
                f"the stack is down: run `make up` (no supervisord behind {self.socket_path})"
            ) from error
        except TimeoutError as error:
            raise StackDownError(
                f"supervisord did not answer {method} within {self._timeout_s:g} s; see logs/supervisord.log"
            ) from error
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == SHUTTING_DOWN:
                raise StackDownError(
                    "the stack is going down: wait for `make down` to end, then run `make up`"
                ) from None
            raise
        finally:
            transport.close()

    def is_up(self) -> bool:
        """Whether a supervisord answers and is not on its way out."""
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except StackDownError:
            return False

    def is_silent(self) -> bool:
        """Whether there is a supervisord that takes a call and does not answer it."""
        try:
            self._call("getState")
        except StackDownError as error:
            return isinstance(error.__cause__, TimeoutError)
        return False

    def pid(self) -> int:
        """Its process id."""
        return int(self._call("getPID"))

    def programs(self) -> dict[str, ProgramInfo]:
        """Every program it manages."""
        return {found["name"]: _info(found) for found in self._call("getAllProcessInfo")}

    def program(self, name: str) -> ProgramInfo | None:
        """One program, or None when it manages none of that name."""
        try:
            return _info(self._call("getProcessInfo", name))
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == BAD_NAME:
                return None
            raise

    def start(self, name: str) -> bool:
        """Start a program; False when it is started already."""
        return self._change("startProcess", name, ALREADY_STARTED)

    def stop(self, name: str) -> bool:
        """Ask a program to stop, without waiting; False when it does not run."""
        return self._change("stopProcess", name, NOT_RUNNING)

    def _change(self, method: str, name: str, already: int) -> bool:
        try:
            self._call(method, name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == already:
                return False
            raise ServiceError(f"{method} {name}: {fault.faultString}") from fault
        return True

    def reread(self) -> tuple[list[str], list[str], list[str]]:
        """Read the configuration file again; the names added, changed and removed, none of them applied yet."""
        try:
            ((added, changed, removed),) = self._call("reloadConfig")
        except xmlrpc.client.Fault as fault:
            raise ServiceError(f"supervisord refused its configuration: {fault.faultString}") from fault
        return list(added), list(changed), list(removed)

    def add(self, name: str) -> None:
        """Take a program of the configuration into management; it does not start."""
        try:
            self._call("addProcessGroup", name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != ALREADY_ADDED:
                raise ServiceError(f"addProcessGroup {name}: {fault.faultString}") from fault

    def remove(self, name: str) -> None:
        """Forget a stopped program."""
        try:
            self._call("removeProcessGroup", name)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != BAD_NAME:
                raise ServiceError(f"removeProcessGroup {name}: {fault.faultString}") from fault

    def shutdown(self) -> None:
        """End supervisord and whatever it still runs."""
        self._call("shutdown")


def _info(found: dict[str, Any]) -> ProgramInfo:
    return ProgramInfo(
        name=found["name"],
        statename=found["statename"],
        wrapper_pid=int(found["pid"]),
        description=found["description"],
        began=float(found["start"]),
        ended=float(found["stop"]),
    )
