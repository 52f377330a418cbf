"""How the sources are: what each producer says on its metrics port, its open gaps and its quota."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from marketflow.catalog import render as text
from marketflow.services.backend import ServiceStatus
from marketflow.settings import Settings
from marketflow.stack.backend import backend
from marketflow.warehouse.connection import connect

VENUES = {"producer-coinbase": "coinbase_exchange", "producer-coingecko": "coingecko"}
# between two looks at a counter: long enough for a rate of a few messages a second to mean something
RATE_OVER_S = 2.0


@dataclass(frozen=True, slots=True)
class Quota:
    """Calls spent and allowed this month; `allowed` is None where the plan has no monthly quota."""

    plan: str
    calls: int
    allowed: int | None

    @property
    def left(self) -> int | None:
        """Calls that are left; None without a quota."""
        return None if self.allowed is None else self.allowed - self.calls


@dataclass(frozen=True, slots=True)
class Source:
    """What is known about one producer; None where nobody can say."""

    service: str
    venue: str
    state: str
    last_message_at: datetime | None
    messages: int | None
    messages_per_s: float | None
    reconnects: int | None
    queue_messages: int | None
    in_flight_messages: int | None
    open_gaps: int
    missing_trades: int
    quota: Quota | None

    def age_s(self, now: datetime) -> float | None:
        """Seconds since the last message; None before the first."""
        return (now - self.last_message_at).total_seconds() if self.last_message_at else None


def metrics_port(settings: Settings, service: str) -> int:
    """Where a producer answers."""
    ports = {
        "producer-coinbase": settings.producer_coinbase_metrics_port,
        "producer-coingecko": settings.producer_coingecko_metrics_port,
    }
    return ports[service]


def scrape(settings: Settings, service: str) -> dict[str, float] | None:
    """The producer's samples by name, summed over labels; None where it does not answer: a finding, not an error."""
    url = f"http://{settings.host}:{metrics_port(settings, service)}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            told = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def facts(
    connection: psycopg.Connection[Any], service: str, status: ServiceStatus | None, said: Mapping[str, float] | None
) -> Source:
    """One producer, from what it said on its port and what PostgreSQL knows of its venue."""
    venue, told = VENUES[service], said or {}
    gaps = connection.execute(
        "select count(*), coalesce(sum(last_missing_id - first_missing_id + 1), 0) from ops.trade_gap "
        "where venue = %s and status = 'open'",
        (venue,),
    ).fetchone() or (0, 0)
    # a gauge that was never set is 0, which would be an age of half a century
    last = told.get("marketflow_last_message_timestamp_seconds") or None
    return Source(
        service=service,
        venue=venue,
        state=status.state if status else "unknown",
        last_message_at=datetime.fromtimestamp(last, UTC) if last else None,
        messages=_total(said, "marketflow_messages_total"),
        messages_per_s=None,
        reconnects=_total(said, "marketflow_reconnects_total"),
        queue_messages=_count(told, "marketflow_queue_messages"),
        in_flight_messages=_count(told, "marketflow_in_flight_messages"),
        open_gaps=int(gaps[0]),
        missing_trades=int(gaps[1]),
        quota=quota(connection, venue),
    )


def _count(told: Mapping[str, float], name: str) -> int | None:
    return int(told[name]) if name in told else None


def _total(said: Mapping[str, float] | None, name: str) -> int | None:
    """A counter, which is not there before it first counts."""
    return None if said is None else int(said.get(name, 0))


def quota(connection: psycopg.Connection[Any], venue: str) -> Quota | None:
    """This month's calls of a venue that is polled; None where none was counted."""
    row = connection.execute(
        "select plan, calls, calls_allowed from ops.quota_usage where source = %s "
        "and month = date_trunc('month', now() at time zone 'utc')::date order by updated_at desc limit 1",
        (venue,),
    ).fetchone()
    return Quota(row[0], int(row[1]), None if row[2] is None else int(row[2])) if row else None


def collect(settings: Settings, *, rate_over_s: float = RATE_OVER_S) -> list[Source]:
    """Every producer of this deployment, looked at twice for its rate."""
    statuses = {name: status for name, status in backend(settings).status().items() if name in VENUES}
    before = {service: scrape(settings, service) for service in statuses}
    started = time.monotonic()
    time.sleep(rate_over_s)
    after = {service: scrape(settings, service) for service in statuses}
    seconds = time.monotonic() - started
    found = []
    with connect(settings, "marketflow_reader") as connection:
        for service, status in statuses.items():
            one = facts(connection, service, status, after[service])
            first = _total(before[service], "marketflow_messages_total")
            # a producer that was started between the two looks begins at nothing
            grown = None if first is None or one.messages is None else max(0, one.messages - first)
            rate = None if grown is None else round(grown / seconds, 2)
            found.append(Source(**{**_fields(one), "messages_per_s": rate}))
    return found


def _fields(source: Source) -> dict[str, Any]:
    return {name: getattr(source, name) for name in Source.__dataclass_fields__}


def as_dict(source: Source) -> dict[str, Any]:
    """For --json."""
    return asdict(source)


def render(sources: list[Source], now: datetime) -> str:
    """The same for a person."""
    columns = ("source", "state", "last message", "per s", "messages", "reconnects", "queue", "open gaps", "calls")
    return text.table(columns, [_row(source, now) for source in sources])


def _row(source: Source, now: datetime) -> tuple[Any, ...]:
    age = source.age_s(now)
    spent = source.quota
    return (
        source.service,
        source.state,
        "never" if age is None else f"{text.age(age)} ago",
        source.messages_per_s,
        source.messages,
        source.reconnects,
        source.queue_messages,
        f"{source.open_gaps} ({source.missing_trades} trades)" if source.open_gaps else "0",
        "" if spent is None else f"{spent.calls} of {spent.allowed or 'no limit'} ({spent.plan})",
    )
