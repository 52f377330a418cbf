"""`make down`: every service stopped in order, nothing left running, nothing lost."""

from __future__ import annotations

from collections.abc import Callable

from marketflow.settings import Settings
from marketflow.stack.backend import backend, was_started


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Stop in order and wait; says what had to be killed. A stack that is down already is no error."""
    if settings.deployment == "embedded" and not was_started(settings):
        say(f"nothing was ever started in {settings.home}")
        return
    supervisor = backend(settings)
    if supervisor.client.is_up():
        say("stopping Airflow, then the sources, the stream, Kafka, S3 and PostgreSQL")
    else:
        say("no supervisor runs here; looking for what a killed one may have left")
    killed = supervisor.shutdown()
    for ended in killed:
        say(f"{ended.service} (pid {ended.pid}) did not leave in time and was killed; it goes on from its last commit")
    say("stopped; no process is left")
