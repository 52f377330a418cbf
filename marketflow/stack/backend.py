"""Which service backend this deployment has."""

from __future__ import annotations

from marketflow.errors import SetupError
from marketflow.services.supervisor import SupervisorBackend
from marketflow.settings import Settings
from marketflow.stack.definitions import definitions


def backend(settings: Settings) -> SupervisorBackend:
    """The supervisor of this home. On AWS the clients are passed in by who has them (Airflow's hooks)."""
    if settings.deployment == "embedded" and not was_started(settings):
        raise SetupError(
            f"nothing was ever started in {settings.home}: run `make up` (MARKETFLOW_HOME names another home)"
        )
    return SupervisorBackend(settings, definitions(settings))


def was_started(settings: Settings) -> bool:
    """Whether this home ever had a stack: the first thing that is made in it are its secrets."""
    return (settings.home / "secrets.json").exists()
