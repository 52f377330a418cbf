"""Which service backend this deployment has."""

from __future__ import annotations

from marketflow.services.supervisor import SupervisorBackend
from marketflow.settings import Settings
from marketflow.stack.definitions import definitions


def backend(settings: Settings) -> SupervisorBackend:
    """The supervisor of this home. On AWS the clients are passed in by who has them (Airflow's hooks)."""
    return SupervisorBackend(settings, definitions(settings))
