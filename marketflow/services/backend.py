"""What any service manager must be able to do, so that Dags and the command line need not know which one there is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from marketflow.errors import MarketflowError, SetupError

ServiceState = Literal["running", "starting", "stopped", "backoff", "failed", "unknown"]
# What has been started and not been stopped, whether it is well or not.
ACTIVE_STATES: tuple[ServiceState, ...] = ("running", "starting", "backoff")


class StackDownError(SetupError):
    """No service manager answers."""


class ServiceError(MarketflowError):
    """A service could not be started or stopped; the message names it and why."""


class UnknownServiceError(ServiceError):
    """No service has this name; the message names those that there are."""

    exit_code = 2


@dataclass(frozen=True)
class ServiceStatus:
    """How one service is.

    `starting` waits for something it needs, `backoff` pauses after a failure, `failed` will not be tried again.
    `pid` is the service's own first process, None where there is none here. `since` is when the state began.
    `configuration_hash` is that of the definition it was started with, None where nobody wrote it down. `crashes` are
    the newest ends that nobody asked for, oldest first.
    """

    name: str
    state: ServiceState
    pid: int | None = None
    since: datetime | None = None
    uptime_s: float | None = None
    detail: str = ""
    configuration_hash: str | None = None
    crashes: tuple[datetime, ...] = ()


class ServiceBackend(Protocol):
    """A service manager. Start and stop say whether they changed anything; asking twice is no error."""

    def status(self) -> dict[str, ServiceStatus]:
        """Every service it knows."""
        ...

    def start(self, name: str) -> bool:
        """Start a service with its present definition; False when it was started already."""
        ...

    def stop(self, name: str) -> bool:
        """Stop a service and wait until it has ended; False when it was stopped already."""
        ...

    def restart(self, name: str) -> None:
        """Stop it if it runs, then start it with its present definition."""
        ...

    def discard(self, name: str) -> None:
        """Stop a service that has no definition any more, and forget it where that can be done."""
        ...

    def logs(self, name: str, lines: int = 100) -> list[str]:
        """The last lines it wrote, oldest first."""
        ...
