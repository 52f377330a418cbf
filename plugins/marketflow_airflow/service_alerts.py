"""What is wrong with a service is an alert, from the round that sees it to the one that does not."""

from __future__ import annotations

from collections.abc import Iterable

from marketflow_airflow import notify
from marketflow_airflow.service_round import WRONG_EVENTS, Condition

_COMMANDS = {
    "down": "marketflow logs {service}",
    "flapping": "marketflow logs {service}",
    "hung": "marketflow sources",
    "silent": "marketflow sources",
    "behind": "marketflow status",
}
STREAM = "market-stream"
SIMULATOR = "simulator"


def tell_of_services(wrong: Iterable[Condition], well: Iterable[str]) -> None:
    """Tell of each condition, and end what was told of services that are well. Never raises."""
    for condition in wrong:
        command = _COMMANDS[condition.event].format(service=condition.service)
        if condition.service == STREAM and condition.event in ("silent", "behind"):
            command = "marketflow sql stream"
        elif condition.service == SIMULATOR:
            command = f"marketflow logs {SIMULATOR}"
        notify.tell_of(
            key=f"service:{condition.service}",
            title=f"{condition.service} is {condition.event}",
            cause=condition.detail,
            command=command,
            layer="bronze",
            weight=len(WRONG_EVENTS) - WRONG_EVENTS.index(condition.event),
        )
    for service in well:
        notify.recover(f"service:{service}")
