"""How the sources are: what each producer says on its metrics port, its open gaps and its quota."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from marketflow.catalog import render as text
from marketflow.contracts.sources import BY_SERVICE
from marketflow.ingest import quotas
from marketflow.services.backend import ServiceStatus
from marketflow.settings import Settings
from marketflow.stack.backend import backend
from marketflow.stack.hanging import why_hung
from marketflow.warehouse.connection import connect

# between two looks at a counter: long enough for a rate of a few messages a second to mean something
RATE_OVER_S = 2.0
ANSWER_WITHIN_S = 3.0
# the key of `scrape` for polls that brought no price
FAILED_POLLS = "polls that brought no price"


@dataclass(frozen=True, slots=True)
class Quota:
    """What was spent and is allowed this month, in calls or weight; `allowed` is None where the plan has no quota."""

    plan: str
    calls: int
    allowed: int | None

    @property
    def left(self) -> int | None:
        """Calls that are left; None without a quota."""
        return None if self.allowed is None else self.allowed - self.calls


@dataclass(frozen=True, slots=True)
class Source:
    """What is known about one producer; None where nobody can say, or where its kind has no such thing.

    Counters begin with the process. A feed reconnects, has a queue and loses messages; a poller has failed polls (any
    answer without a price, and none), and a venue that counts weight says what was spent in this minute. `hung` says
    why its process is taken for one that lives and works no longer.
    """

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
    failed_polls: int | None = None
    lost_messages: int | None = None
    ids_went_back: int | None = None
    minute_used: int | None = None
    minute_allowed: int | None = None
    hung: str | None = None

    @property
    def minute_left(self) -> int | None:
        """Weight that is left in this minute by the venue's own count; None where it counts none, or has said none."""
        if self.minute_used is None or self.minute_allowed is None:
            return None
        return self.minute_allowed - self.minute_used

    def age_s(self, now: datetime) -> float | None:
        """Seconds since the last message; None before the first."""
        return (now - self.last_message_at).total_seconds() if self.last_message_at else None


def metrics_port(settings: Settings, service: str) -> int:
    """Where a producer answers."""
    return int(getattr(settings, BY_SERVICE[service].metrics_port_setting))


def scrape(settings: Settings, service: str, *, timeout_s: float = ANSWER_WITHIN_S) -> dict[str, float] | None:
    """The producer's samples by name, summed over labels; None where it does not answer: a finding, not an error."""
    url = f"http://{settings.host}:{metrics_port(settings, service)}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            told = answer.read().decode()
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return None
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(told):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
            if sample.name == "marketflow_polls_total" and sample.labels.get("status") != "200":
                found[FAILED_POLLS] = found.get(FAILED_POLLS, 0.0) + sample.value
    return found


def simulator_answers(settings: Settings, *, timeout_s: float = ANSWER_WITHIN_S) -> bool:
    """Whether the simulated exchange says how it is."""
    url = f"http://{settings.host}:{settings.simulator_rest_port}/control/status"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            answer.read()
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return False
    return True


def facts(
    connection: psycopg.Connection[Any], service: str, status: ServiceStatus | None, said: Mapping[str, float] | None
) -> Source:
    """One producer, from what it said on its port and what PostgreSQL knows of its venue."""
    source, told = BY_SERVICE[service], said or {}
    gaps = connection.execute(
        "select count(*), coalesce(sum(last_missing_id - first_missing_id + 1), 0) from ops.trade_gap "
        "where venue = %s and status = 'open'",
        (source.venue if source.is_feed else "",),
    ).fetchone() or (0, 0)
    # a gauge that was never set is 0, which would be an age of half a century
    last = told.get("marketflow_last_message_timestamp_seconds") or None
    return Source(
        service=service,
        venue=source.venue,
        state=status.state if status else "unknown",
        last_message_at=datetime.fromtimestamp(last, UTC) if last else None,
        messages=_total(said, "marketflow_messages_total"),
        messages_per_s=None,
        reconnects=_total(said, "marketflow_reconnects_total") if source.is_feed else None,
        queue_messages=_count(told, "marketflow_queue_messages") if source.is_feed else None,
        in_flight_messages=_count(told, "marketflow_in_flight_messages"),
        open_gaps=int(gaps[0]),
        missing_trades=int(gaps[1]),
        quota=quota(connection, source.name),
        failed_polls=None if source.is_feed else _total(said, FAILED_POLLS),
        lost_messages=_total(said, "marketflow_lost_messages_total") if source.is_feed else None,
        ids_went_back=_total(said, "marketflow_ids_went_back_total") if source.is_feed else None,
        minute_used=_count(told, "marketflow_minute_used_weight"),
        minute_allowed=_per_minute(source.name),
        hung=why_hung(said, status.uptime_s or 0.0) if status and status.state == "running" else None,
    )


def _count(told: Mapping[str, float], name: str) -> int | None:
    return int(told[name]) if name in told else None


def _total(said: Mapping[str, float] | None, name: str) -> int | None:
    """A counter, which is not there before it first counts."""
    return None if said is None else int(said.get(name, 0))


def _per_minute(name: str) -> int | None:
    """What a minute allows where weight is counted, whatever the plan; None elsewhere."""
    weights = [plan.calls_per_minute for plan in quotas.PLANS.get(name, {}).values() if plan.unit == "weight"]
    return weights[0] if weights else None


def quota(connection: psycopg.Connection[Any], source: str) -> Quota | None:
    """This month's calls of a source; None where none was counted."""
    row = connection.execute(
        "select plan, calls, calls_allowed from ops.quota_usage where source = %s "
        "and month = date_trunc('month', now() at time zone 'utc')::date order by updated_at desc limit 1",
        (source,),
    ).fetchone()
    return Quota(row[0], int(row[1]), None if row[2] is None else int(row[2])) if row else None


def collect(settings: Settings, *, rate_over_s: float = RATE_OVER_S) -> list[Source]:
    """Every producer of this deployment, looked at twice for its rate."""
    statuses = {name: status for name, status in backend(settings).status().items() if name in BY_SERVICE}
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
            if BY_SERVICE[service].is_feed:
                # a producer that was started between the two looks begins at nothing
                grown = None if first is None or one.messages is None else max(0, one.messages - first)
                rate = None if grown is None else round(grown / seconds, 2)
            else:
                # two seconds lie between two polls: what it asked since it started says more
                rate = (
                    round(one.messages / status.uptime_s, 3) if one.messages is not None and status.uptime_s else None
                )
            found.append(replace(one, messages_per_s=rate))
    return found


def as_dict(source: Source) -> dict[str, Any]:
    """For --json."""
    left = None if source.quota is None else source.quota.left
    return asdict(source) | {"quota_left": left, "minute_left": source.minute_left}


def render(sources: list[Source], now: datetime) -> str:
    """The same for a person."""
    columns = (
        *("source", "state", "last message", "per s", "messages", "reconnects", "queue"),
        *("lost", "ids back", "failed polls", "open gaps", "spent this month"),
    )
    return text.table(columns, [_row(source, now) for source in sources])


def _row(source: Source, now: datetime) -> tuple[Any, ...]:
    age = source.age_s(now)
    return (
        source.service,
        f"{source.state}, hung" if source.hung else source.state,
        f"{text.age(age)} ago" if age is not None else "never" if source.state == "running" else "",
        source.messages_per_s,
        source.messages,
        source.reconnects,
        source.queue_messages,
        source.lost_messages,
        source.ids_went_back,
        source.failed_polls,
        _gaps(source),
        _spent(source),
    )


def _gaps(source: Source) -> str:
    if not BY_SERVICE[source.service].is_feed:
        return ""
    return f"{source.open_gaps} ({source.missing_trades} trades)" if source.open_gaps else "0"


def _spent(source: Source) -> str:
    """120 of 10000, 9880 left (demo); of a venue that counts weight what this minute has left, too."""
    spent, words = source.quota, []
    if spent is not None:
        limit = "no limit" if spent.allowed is None else f"{spent.allowed}, {spent.left} left"
        words.append(f"{spent.calls} of {limit} ({spent.plan})")
    if source.minute_left is not None:
        words.append(f"{source.minute_left} of {source.minute_allowed} left this minute")
    return ", ".join(words)
