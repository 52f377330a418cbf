"""Which service backend this deployment has."""

from __future__ import annotations

from marketflow.services.backend import ServiceBackend
from marketflow.settings import Settings


def backend(settings: Settings) -> ServiceBackend:
    """The supervisor of this home. On AWS the clients are passed in by who has them (Airflow's hooks)."""
    from marketflow.services.supervisor import SupervisorBackend

    return SupervisorBackend(settings)
