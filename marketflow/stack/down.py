"""`make down`: every service stopped in order, nothing left running, nothing lost."""

from __future__ import annotations

from collections.abc import Callable

from marketflow.services.supervisor import SupervisorBackend
from marketflow.settings import Settings


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Stop in order and wait; says what had to be killed. A stack that is down already is no error."""
    supervisor = SupervisorBackend(settings)
    if not supervisor.client.is_up():
        say("nothing runs here")
        return
    say("stopping Airflow, producers, stream, then Kafka, S3 and PostgreSQL")
    killed = supervisor.shutdown()
    for ended in killed:
        say(f"{ended.service} (pid {ended.pid}) did not leave in time and was killed; it goes on from its last commit")
    say("stopped; no process is left")
