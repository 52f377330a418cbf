"""How the sources are: what each producer says on its metrics port, its open gaps and its quota. No Airflow."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from marketflow_airflow.service_round import Condition

if TYPE_CHECKING:
    import psycopg

    from marketflow.services.backend import ServiceStatus
    from marketflow.settings import Settings

SIMULATOR = "simulator"
VENUES = {"producer-coinbase": "coinbase_exchange", "producer-coingecko": "coingecko"}
FEED_SERVICES = (SIMULATOR, *VENUES)
# A feed sends a heartbeat every second and its own watchdog reconnects after feed_silence_s: by then it has had three.
_FEED_PATIENCE_S = 60.0
_QUEUE_SHARE = 0.5
_QUOTA_LEFT_SHARE = 0.05
_GAUGE = re.compile(r"^(marketflow_\w+)(?:\{[^}]*\})? ([0-9eE+.\-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Facts:
    """What is known about one source; None where nobody can say."""

    service: str
    last_message_age_s: float | None
    queue_messages: int | None
    open_gaps: int
    missing_trades: int
    calls_left: int | None

    def __str__(self) -> str:
        """One line for the log."""
        age = "unknown" if self.last_message_age_s is None else f"{self.last_message_age_s:.0f} s ago"
        quota = "" if self.calls_left is None else f", {self.calls_left} calls left this month"
        return (
            f"{self.service}: last message {age}, {self.queue_messages} queued, "
            f"{self.open_gaps} open gaps ({self.missing_trades} trades){quota}"
        )


def look(
    settings: Settings, connection: psycopg.Connection[Any], statuses: Mapping[str, ServiceStatus]
) -> tuple[list[Facts], list[Condition]]:
    """Facts and what is wrong about every producer that runs. Open gaps are facts alone: the ledger has their rows."""
    facts, conditions = [], []
    for service, venue in VENUES.items():
        status = statuses.get(service)
        if status is None or status.state != "running":
            continue
        gauges = scrape(settings, service)
        found = _facts(connection, service, venue, gauges)
        facts.append(found)
        conditions += _conditions(settings, connection, found, status.uptime_s or 0.0, gauges is not None)
    return facts, conditions


def patience_s(settings: Settings, service: str) -> float:
    """How long a source may say nothing."""
    if service == "producer-coingecko":
        from marketflow.ingest.quotas import effective_interval_s

        return 3 * effective_interval_s(settings) + 30
    return max(_FEED_PATIENCE_S, 3 * settings.feed_silence_s)


def metrics_port(settings: Settings, service: str) -> int:
    """Where a producer answers."""
    ports = {
        "producer-coinbase": settings.producer_coinbase_metrics_port,
        "producer-coingecko": settings.producer_coingecko_metrics_port,
    }
    return ports[service]


def scrape(settings: Settings, service: str) -> dict[str, float] | None:
    """The producer's gauges (sums over labels), or None where it does not answer, which is a finding, not an error."""
    url = f"http://{settings.host}:{metrics_port(settings, service)}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None
    gauges: dict[str, float] = {}
    for name, value in _GAUGE.findall(text):
        gauges[name] = gauges.get(name, 0.0) + float(value)
    return gauges


def _facts(connection: psycopg.Connection[Any], service: str, venue: str, gauges: Mapping[str, float] | None) -> Facts:
    said = gauges or {}
    # a gauge that was never set is 0, which would be an age of half a century
    last = said.get("marketflow_last_message_timestamp_seconds") or None
    queue = said.get("marketflow_queue_messages")
    gaps = connection.execute(
        "select count(*), coalesce(sum(last_missing_id - first_missing_id + 1), 0) from ops.trade_gap "
        "where venue = %s and status = 'open'",
        (venue,),
    ).fetchone() or (0, 0)
    quota = _quota(connection, venue)
    return Facts(
        service=service,
        last_message_age_s=datetime.now(UTC).timestamp() - last if last else None,
        queue_messages=None if queue is None else int(queue),
        open_gaps=int(gaps[0]),
        missing_trades=int(gaps[1]),
        calls_left=None if quota is None else quota[1] - quota[0],
    )


def _quota(connection: psycopg.Connection[Any], venue: str) -> tuple[int, int] | None:
    """Calls spent and allowed this month; None where the plan has no monthly quota."""
    row = connection.execute(
        "select calls, calls_allowed from ops.quota_usage where source = %s and calls_allowed is not null "
        "and month = date_trunc('month', now() at time zone 'utc')::date order by updated_at desc limit 1",
        (venue,),
    ).fetchone()
    return (int(row[0]), int(row[1])) if row else None


def _conditions(
    settings: Settings, connection: psycopg.Connection[Any], facts: Facts, uptime_s: float, answers: bool
) -> list[Condition]:
    found = []
    patience = patience_s(settings, facts.service)
    # what happened before it started is not its silence
    age_s = uptime_s if facts.last_message_age_s is None else min(uptime_s, facts.last_message_age_s)
    if age_s > patience:
        said = "It has not answered on its metrics port" if not answers else "No message has arrived"
        found.append(Condition(facts.service, "silent", f"{said} for {age_s:.0f} s, expected within {patience:.0f} s."))
    limit = _QUEUE_SHARE * settings.feed_queue_messages
    if facts.queue_messages is not None and facts.queue_messages > limit:
        detail = f"{facts.queue_messages} messages wait for Kafka, of {settings.feed_queue_messages} that fit."
        found.append(Condition(facts.service, "behind", detail))
    quota = _quota(connection, VENUES[facts.service])
    if quota is not None and quota[1] - quota[0] < _QUOTA_LEFT_SHARE * quota[1]:
        detail = f"{max(0, quota[1] - quota[0])} of {quota[1]} calls are left this month."
        found.append(Condition(facts.service, "behind", detail))
    return found
