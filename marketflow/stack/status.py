"""How the stack is: services, freshness of each layer, lag, disk, and how long an outage it could still take."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from confluent_kafka import KafkaException

from marketflow.catalog import render as text
from marketflow.contracts.topics import TOPICS
from marketflow.errors import MarketflowError, SetupError
from marketflow.services.backend import ServiceStatus
from marketflow.services.flapping import why_flapping
from marketflow.settings import Settings
from marketflow.stack.backend import backend
from marketflow.stack.outage import Outage, outage_left
from marketflow.warehouse.connection import connect

# A layer older than this while the stack runs is late: two advance runs and a trigger for silver, gold's hour for gold.
_LATE_AFTER = {"bronze": timedelta(minutes=3), "silver": timedelta(minutes=15), "gold": timedelta(minutes=80)}
# Dag gold_daily runs once a day, so its table is a day behind between two runs, and so is its copy
_DAILY = {"gold.product_day": timedelta(hours=27), "postgres gold.product_day": timedelta(hours=27)}
COPY = "postgres "
# publication looks every quarter of an hour
_COPY_LATE_AFTER = timedelta(minutes=50)
# a mark, and when publication last had nothing left to do; a table without publication has no copy
_LAYERS = """
select table_name, complete_through, newest_event_at from ops.layer_freshness
union all
select 'postgres ' || table_name, coalesce(looked_at, published_at), null from ops.publish_audit
order by 1
"""
# Services that a whole stack runs; one that a person stopped is shown as stopped and is not a fault.
_FREE_DISK_WARNING_BYTES = 5 * 1024**3


@dataclass(frozen=True, slots=True)
class Layer:
    """One table's mark and whether it is late."""

    table_name: str
    complete_through: datetime
    age_s: float
    late: bool
    newest_event_at: datetime | None


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `marketflow status` shows. `problems` are sentences; an empty list is health."""

    dataset: str
    services: dict[str, ServiceStatus]
    layers: list[Layer] = field(default_factory=list)
    lag_messages: dict[str, int] = field(default_factory=dict)
    open_gaps: int | None = None
    outage: Outage | None = None
    free_disk_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    # what a person chose, or what is over: no fault of the stack now, and good to know
    warnings: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"healthy": self.healthy, **asdict(self)}


def late_after(table_name: str) -> timedelta:
    """How far behind a table, or its copy in PostgreSQL (`postgres gold.bars`), may be."""
    if table_name in _DAILY:
        return _DAILY[table_name]
    return _COPY_LATE_AFTER if table_name.startswith(COPY) else _LATE_AFTER[table_name.split(".")[0]]


def layers_of(connection: psycopg.Connection[tuple[Any, ...]], now: datetime) -> list[Layer]:
    """Every table that has a mark, every copy in PostgreSQL, and whether it is late."""
    rows = connection.execute(_LAYERS)
    return [
        Layer(name, at, (now - at).total_seconds(), now - at > late_after(name), newest)
        for name, at, newest in rows.fetchall()
    ]


def lag_of(settings: Settings, connection: psycopg.Connection[tuple[Any, ...]]) -> dict[str, int]:
    """Messages in Kafka that bronze does not have yet, by topic, from the stream's own newest batches."""
    from marketflow.stack.outage import end_offsets

    lags: dict[str, int] = {}
    for topic in TOPICS:
        row = connection.execute(
            "select end_offsets from ops.stream_progress where query = %s and end_offsets is not null "
            "order by at desc limit 1",
            (f"bronze_{topic.bronze}",),
        ).fetchone()
        name = topic.full_name(settings.topic_prefix)
        read = json.loads(row[0]).get(name, {}) if row else {}
        ends = end_offsets(settings, name)
        lags[name] = sum(end - int(read.get(str(partition), 0)) for partition, end in ends.items())
    return lags


def _service_problems(services: dict[str, ServiceStatus], stopped_by_hand: set[str]) -> list[str]:
    now, found = datetime.now(UTC), []
    for name, status in services.items():
        flapping = why_flapping(status, now)
        if flapping:
            found.append(f"{name} is flapping: {flapping} `marketflow logs {name}`")
        elif status.state not in ("running", "starting") and name not in stopped_by_hand:
            why = f": {status.detail}" if status.detail else ""
            found.append(f"{name} is {status.state}{why}; `marketflow logs {name}`")
    return found


def _hung(connection: psycopg.Connection[tuple[Any, ...]], services: dict[str, ServiceStatus]) -> list[str]:
    """Producers and simulator that the last round which had anything to say found hanging."""
    rows = connection.execute(
        "select distinct on (service) service, event, detail from ops.service_event order by service, at desc"
    ).fetchall()
    running = {name for name, status in services.items() if status.state == "running"}
    return [
        f"{service} is hung: {detail} `marketflow logs {service}`"
        for service, event, detail in rows
        if event == "hung" and service in running
    ]


def running_dataset(settings: Settings) -> str:
    """The dataset that `up` last started in this home."""
    note = settings.home / "run" / "dataset"
    return note.read_text().strip() if note.exists() else settings.dataset


def collect(settings: Settings) -> Status:
    """Ask every part. A part that does not answer becomes a problem, not an error."""
    services = backend(settings).status()
    free = shutil.disk_usage(settings.home).free
    now = datetime.now(UTC)
    try:
        with connect(settings) as connection:
            by_hand = connection.execute(
                "select service, set_by, set_at from ops.service_desired where desired = 'stopped' order by service"
            ).fetchall()
            warnings = [f"{name} is stopped since {at:%H:%M:%S} UTC, by {who}" for name, who, at in by_hand]
            warnings += _new_holes(connection)
            running = running_dataset(settings)
            if running != settings.dataset:
                warnings.append(
                    f"dataset {running} runs in this home: its are the services, {settings.dataset} is at rest"
                )
            hung = _hung(connection, services)
            warnings += _open_alerts(connection)
            layers = layers_of(connection, now)
            lag, outage, of_kafka = _kafka(settings, connection)
            gaps = connection.execute("select count(*) from ops.trade_gap where status = 'open'").fetchone()
    except (psycopg.Error, MarketflowError) as error:
        what = str(error) if isinstance(error, SetupError) else f"PostgreSQL does not answer: {error}"
        problems = [*_service_problems(services, set()), what]
        return Status(settings.dataset, services, free_disk_bytes=free, problems=problems)
    stopped = {name for name, _, _ in by_hand}
    problems = [*_service_problems(services, stopped), *hung, *of_kafka]
    problems += [
        f"{layer.table_name} is complete through {layer.complete_through:%H:%M:%S} only, {layer.age_s / 60:.0f} min ago"
        for layer in layers
        if layer.late
    ]
    problems += outage.warnings if outage else []
    if free < _FREE_DISK_WARNING_BYTES:
        problems.append(f"only {free / 1024**3:.1f} GiB of disk are free under {settings.home}")
    open_gaps = int(gaps[0]) if gaps else 0
    return Status(settings.dataset, services, layers, lag, open_gaps, outage, free, problems, warnings)


def _kafka(
    settings: Settings, connection: psycopg.Connection[tuple[Any, ...]]
) -> tuple[dict[str, int], Outage | None, list[str]]:
    """The lag and how long an outage there could be; while the broker is away or coming back, a problem instead."""
    lag: dict[str, int] = {}
    try:
        lag = lag_of(settings, connection)
        return lag, outage_left(settings), []
    except KafkaException as error:
        return lag, None, [f"Kafka does not answer as it should: {error.args[0].str()}; `marketflow logs kafka`"]


def _open_alerts(connection: psycopg.Connection[tuple[Any, ...]]) -> list[str]:
    """How many alerts are open, and the newest of them."""
    rows = connection.execute(
        "select title, opened_at from ops.alert where closed_at is null order by opened_at desc"
    ).fetchall()
    if not rows:
        return []
    title, opened_at = rows[0]
    count = f"{len(rows)} alerts are open, the newest" if len(rows) > 1 else "an alert is open"
    return [f"{count}: {title} (since {opened_at:%Y-%m-%d %H:%M} UTC); `marketflow alerts list`"]


def _new_holes(connection: psycopg.Connection[tuple[Any, ...]]) -> list[str]:
    """What the feeds lost in the last ten minutes and is not there yet, a sentence a venue and cause."""
    rows = connection.execute(
        "select venue, cause, count(*), sum(last_missing_id - first_missing_id + 1) from ops.trade_gap "
        "where status = 'open' and detected_at > now() - interval '10 minutes' group by venue, cause order by 1, 2"
    ).fetchall()
    return [
        f"{venue} lost {trades} trades in {holes} hole{'s' if holes > 1 else ''} in the last ten minutes ({cause}); "
        "`marketflow gaps`"
        for venue, cause, holes, trades in rows
    ]


def render(status: Status) -> str:
    """The same for a person."""
    services = text.table(
        ("service", "state", "pid", "uptime"),
        [
            (name, one.state, one.pid or "", str(timedelta(seconds=int(one.uptime_s))) if one.uptime_s else "")
            for name, one in status.services.items()
        ],
    )
    layers = text.table(
        ("table", "complete through (UTC)", "age", "newest event (UTC)", ""),
        [
            (
                layer.table_name,
                layer.complete_through,
                text.age(layer.age_s),
                layer.newest_event_at,
                "late" if layer.late else "",
            )
            for layer in status.layers
        ],
    )
    lag = ", ".join(f"{name} {count}" for name, count in status.lag_messages.items()) or "unknown"
    outage = f"{status.outage.hours_left:.0f} h" if status.outage else "unknown"
    gaps = "unknown" if status.open_gaps is None else status.open_gaps
    facts = [
        f"dataset {status.dataset} · open gaps {gaps} · outage that Kafka can bridge {outage} · "
        f"free disk {status.free_disk_bytes / 1024**3:.0f} GiB",
        f"messages not yet in bronze: {lag}",
    ]
    verdict = "\n".join(
        [
            *(["healthy"] if status.healthy else [f"PROBLEM {problem}" for problem in status.problems]),
            *(f"WARNING {warning}" for warning in status.warnings),
        ]
    )
    return "\n\n".join([services, layers, "\n".join(facts), verdict])
