"""What is wrong with the sources, by what `marketflow.stack.sources` knows of them. No Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from marketflow.contracts.sources import BY_SERVICE
from marketflow_airflow.service_round import Condition

if TYPE_CHECKING:
    import psycopg

    from marketflow.services.backend import ServiceStatus
    from marketflow.settings import Settings
    from marketflow.stack.sources import Source

SIMULATOR = "simulator"
PRODUCERS = tuple(BY_SERVICE)
FEED_SERVICES = (SIMULATOR, *PRODUCERS)
# A feed sends a heartbeat every second and its own watchdog reconnects after feed_silence_s: by then it has had three.
_FEED_PATIENCE_S = 60.0
# A scrape that is not answered in its usual time, on a machine that may be busy, is asked once more with this patience.
ANSWER_WITHIN_S = 10.0
# Each restart may take half a minute of the round, since what hangs does not hear that it is to stop.
MOST_RESTARTS = 3
_QUEUE_SHARE = 0.5
_QUOTA_LEFT_SHARE = 0.05


@dataclass
class Seen:
    """A line about every producer that runs, what is wrong, and which have only just begun and say nothing yet."""

    lines: list[str] = field(default_factory=list)
    conditions: list[Condition] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)


def look(settings: Settings, connection: psycopg.Connection[Any], statuses: Mapping[str, ServiceStatus]) -> Seen:
    """How the producers are, and the simulated exchange. Open gaps are no fault: the ledger has their rows."""
    from marketflow.stack import sources

    seen, now = Seen(), datetime.now(UTC)
    _look_at_simulator(settings, statuses.get(SIMULATOR), seen)
    for service in PRODUCERS:
        status = statuses.get(service)
        if status is None or status.state != "running":
            continue
        said = sources.scrape(settings, service) or sources.scrape(settings, service, timeout_s=ANSWER_WITHIN_S)
        source = sources.facts(connection, service, status, said)
        seen.lines.append(line(source, now))
        if source.hung:
            seen.conditions.append(Condition(service, "hung", source.hung))
        elif said is None:
            seen.unsure.add(service)
        else:
            seen.conditions += _conditions(settings, source, now, status.uptime_s or 0.0)
    return seen


def _look_at_simulator(settings: Settings, status: ServiceStatus | None, seen: Seen) -> None:
    from marketflow.stack import hanging, sources

    if status is None or status.state != "running":
        return
    answers = sources.simulator_answers(settings) or sources.simulator_answers(settings, timeout_s=ANSWER_WITHIN_S)
    if why := hanging.why_simulator_hung(answers, status.uptime_s or 0.0):
        seen.conditions.append(Condition(SIMULATOR, "hung", why))
    elif not answers:
        seen.unsure.add(SIMULATOR)


def line(source: Source, now: datetime) -> str:
    """One line for the log."""
    age = source.age_s(now)
    left = source.quota.left if source.quota else None
    if BY_SERVICE[source.service].is_feed:
        own = f"{source.queue_messages} queued, {source.open_gaps} open gaps ({source.missing_trades} trades)"
    else:
        own = f"{source.failed_polls} polls without a price"
    return (
        f"{source.service}: last message {'unknown' if age is None else f'{age:.0f} s ago'}, {own}"
        f"{'' if left is None else f', {left} calls left this month'}"
    )


def patience_s(settings: Settings, service: str) -> float:
    """How long a source may say nothing."""
    source = BY_SERVICE[service]
    if not source.is_feed:
        from marketflow.ingest.quotas import effective_interval_s

        return 3 * effective_interval_s(settings, source) + 30
    return max(_FEED_PATIENCE_S, 3 * settings.feed_silence_s)


def _conditions(settings: Settings, source: Source, now: datetime, uptime_s: float) -> list[Condition]:
    found = []
    patience, last_s = patience_s(settings, source.service), source.age_s(now)
    # what happened before it started is not its silence
    age_s = uptime_s if last_s is None else min(uptime_s, last_s)
    if age_s > patience:
        detail = f"No message has arrived for {age_s:.0f} s, expected within {patience:.0f} s."
        found.append(Condition(source.service, "silent", detail))
    limit = _QUEUE_SHARE * settings.feed_queue_messages
    if source.queue_messages is not None and source.queue_messages > limit:
        detail = f"{source.queue_messages} messages wait for Kafka, of {settings.feed_queue_messages} that fit."
        found.append(Condition(source.service, "behind", detail))
    spent = source.quota
    if spent and spent.allowed is not None and spent.allowed - spent.calls < _QUOTA_LEFT_SHARE * spent.allowed:
        detail = f"{max(0, spent.allowed - spent.calls)} of {spent.allowed} calls are left this month."
        found.append(Condition(source.service, "behind", detail))
    return found
