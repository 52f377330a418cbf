"""Which layers are late, why, and what to run. `find` gathers facts, `causes` judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from confluent_kafka import KafkaException

from marketflow.alerts.message import Alert, spoken
from marketflow.contracts.sources import BY_SERVICE
from marketflow.contracts.topics import TOPICS
from marketflow.errors import MarketflowError
from marketflow.settings import Settings
from marketflow.stack import airflow
from marketflow.stack.backend import backend
from marketflow.stack.definitions import STREAM
from marketflow.stack.status import COPY, Layer, lag_of, layers_of
from marketflow.warehouse.connection import connect

# every query of the stream says something once a minute
_STREAM_SILENT = timedelta(minutes=3)
# as Dag market_stream has it
_LAG_MESSAGES = 10_000
# silver is brought up to date every five minutes: its newest event is never much older while anything arrives
QUIET_AFTER = timedelta(minutes=15)
# silver.candles comes only when somebody asks for it
_FED = ("trades", "quotes", "asset_prices")
_BRONZE_OF = {
    "silver.trades": "bronze.trades_raw",
    "silver.quotes": "bronze.ticker_raw",
    "silver.asset_prices": "bronze.prices_raw",
    "silver.candles": "bronze.candles_raw",
}
_MADE_OF = {
    **{table: (source,) for table, source in _BRONZE_OF.items()},
    "gold.bars": ("silver.trades",),
    "gold.trade_features": ("silver.trades", "silver.quotes"),
    "gold.price_metrics": ("silver.asset_prices",),
    "gold.top_movers": ("silver.asset_prices",),
    "gold.product_day": ("gold.bars",),
}
_DAG_OF = {"gold.product_day": "gold_daily"}
_FLOW = ("bronze", "silver", "gold", "postgres")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when layers are judged. None, or an empty mapping, is what could not be asked.

    `services` is service → state, `stopped` those that a person stopped, `said` the newest event of each service in
    ops.service_event with its sentence, `lag` topic → messages that bronze lacks, `stream_said_at` the newest batch
    event, `airflow` part → status, `refused` published table → what its gate found.
    """

    layers: Sequence[Layer]
    services: Mapping[str, str] = field(default_factory=dict)
    stopped: frozenset[str] = frozenset()
    said: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    lag: Mapping[str, int] | None = None
    stream_said_at: datetime | None = None
    airflow: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Late:
    """A layer that is late, or that nothing new reaches (`quiet`): its age, the cause that was found, what to run.

    `follows` says that another one is the cause, or that another alert tells of it.
    """

    table: str
    age_s: float
    cause: str
    command: str
    quiet: bool = False
    follows: bool = False

    @property
    def title(self) -> str:
        """One line."""
        age = spoken(timedelta(seconds=self.age_s))
        return f"{self.table} " + (f"has had nothing new for {age}" if self.quiet else f"is late: complete {age} ago")


def alerts(found: Sequence[Late]) -> list[Alert]:
    """One alert a layer, by its oldest table; what is late because of an earlier layer is not told again."""
    groups: dict[tuple[str, bool], list[Late]] = {}
    for one in found:
        if not one.follows:
            groups.setdefault((_layer(one.table), one.quiet), []).append(one)
    return [_alert(layer, quiet, several) for (layer, quiet), several in groups.items()]


def _alert(layer: str, quiet: bool, several: Sequence[Late]) -> Alert:
    oldest = max(several, key=lambda one: one.age_s)
    others = sorted(one.table for one in several if one is not oldest)
    return Alert(
        key=f"layer:{layer}{':quiet' if quiet else ''}",
        title=oldest.title + (f"; so {'are' if len(others) > 1 else 'is'} {', '.join(others)}" if others else ""),
        cause="; ".join(dict.fromkeys(one.cause for one in [oldest, *several])),
        command=oldest.command,
        layer=oldest.table,
        age_s=round(oldest.age_s, 1),
        more={"tables": {one.table: round(one.age_s, 1) for one in several}},
        weight=len(several),
    )


def find(settings: Settings, *, now: datetime | None = None) -> list[Late]:
    """Every late layer, the first of the flow first.

    Raises:
        psycopg.OperationalError: PostgreSQL does not answer, so no layer's age is known.
    """
    moment = now or datetime.now(UTC)
    return causes(_gather(settings, moment), moment)


def causes(facts: Facts, now: datetime) -> list[Late]:
    """The late ones among the layers, each with its cause. What is late because an earlier layer is says so."""
    late = {layer.table_name: layer for layer in facts.layers if layer.late}
    found = []
    for name, layer in sorted(late.items(), key=lambda item: (_FLOW.index(_layer(item[0])), item[0])):
        if name.startswith(COPY) and name.removeprefix(COPY) in facts.refused:
            continue  # below
        cause, command = _cause(name, late, facts, now)
        found.append(Late(name, layer.age_s, cause, command, follows=bool(_late_before(name, late))))
    for layer in facts.layers:
        quiet = _quiet(layer, facts, now) if layer.table_name not in late else None
        if quiet:
            found.append(quiet)
    for table, why in sorted(facts.refused.items()):
        age_s = next((layer.age_s for layer in facts.layers if layer.table_name == f"{COPY}{table}"), 0.0)
        command = f"marketflow quality history --table {table}"
        cause = f"a hard check keeps its rows out of PostgreSQL: {why}"
        # the task of its publication has failed, and told of it
        found.append(Late(f"{COPY}{table}", age_s, cause, command, follows=True))
    return found


def _layer(name: str) -> str:
    """`gold` of gold.bars, `postgres` of its copy."""
    return name.replace(" ", ".").split(".")[0]


def _late_before(name: str, late: Mapping[str, Layer]) -> list[str]:
    """The nearest late ones among the tables that it is made of, and those that these are of; the oldest first."""
    sources = (name.removeprefix(COPY),) if name.startswith(COPY) else _MADE_OF.get(name, ())
    found = {one for each in sources for one in ([each] if each in late else _late_before(each, late))}
    return sorted(found, key=lambda source: (-late[source].age_s, source))


def _cause(name: str, late: Mapping[str, Layer], facts: Facts, now: datetime) -> tuple[str, str]:
    if name.startswith("bronze."):
        return _cause_in_stream(facts, now)
    for before in _late_before(name, late):
        cause, command = _cause(before, late, facts, now)
        return f"{before} before it is late: {cause}", command
    return _cause_in_airflow(name, facts)


def _cause_in_stream(facts: Facts, now: datetime) -> tuple[str, str]:
    state = facts.services.get(STREAM)
    if STREAM in facts.stopped:
        return "stream down: somebody stopped it by hand", "scripts/airflow dags trigger market_stream --conf " + (
            '\'{"action": "start", "reason": "bronze is late"}\''
        )
    kafka = facts.services.get("kafka")
    if facts.lag is None or kafka not in (None, "running"):
        return f"Kafka {f'is {kafka}' if kafka else 'does not answer'}", "marketflow logs kafka"
    if state not in (None, "running"):
        return f"stream down: {STREAM} is {state}", f"marketflow logs {STREAM}"
    said = facts.stream_said_at
    if said is None or now - said > _STREAM_SILENT:
        since = f"since {said:%H:%M:%S} UTC" if said else "ever"
        return (
            f"stream down: no batch started, ended or idled {since}",
            'scripts/airflow dags trigger market_stream --conf \'{"action": "restart", "reason": "it is silent"}\'',
        )
    behind = sum(facts.lag.values())
    if behind > _LAG_MESSAGES:
        worst = max(facts.lag, key=lambda topic: facts.lag[topic] if facts.lag else 0)
        return f"lag: {behind} messages wait in Kafka, most of them in {worst}", "marketflow sql stream"
    return "the stream works and is not behind: one of its queries may have ended or hang", "marketflow sql stream"


def _cause_in_airflow(name: str, facts: Facts) -> tuple[str, str]:
    dag = name.replace(f"{COPY}gold.", "publish_") if name.startswith(COPY) else _DAG_OF.get(name, "advance")
    sick = [f"{part} is {state}" for part, state in facts.airflow.items() if state != "healthy"]
    down = [f"{one} is {state}" for one, state in facts.services.items() if "airflow" in one and state != "running"]
    if sick or down:
        return f"scheduler behind: {', '.join([*sick, *down])}", "marketflow logs airflow-scheduler"
    return (
        f"scheduler behind: Airflow is well and Dag {dag} has not brought it up to date; its last runs failed, wait "
        "or are paused",
        f"scripts/airflow dags list-runs {dag}",
    )


def _quiet(layer: Layer, facts: Facts, now: datetime) -> Late | None:
    """A layer whose writers work and that nothing reaches. What a person stopped is no fault."""
    kind = layer.table_name.removeprefix("silver.")
    if kind not in _FED or kind == layer.table_name or layer.newest_event_at is None:
        return None
    age = now - layer.newest_event_at
    feeding = [
        service
        for service, source in BY_SERVICE.items()
        if kind in source.brings and service in facts.services and service not in facts.stopped
    ]
    if age <= QUIET_AFTER or not feeding:
        return None
    told = [
        f"{service} is {facts.said[service][0]}: {facts.said[service][1]}"
        for service in feeding
        if facts.said.get(service, ("",))[0] in ("silent", "hung", "flapping", "down", "behind")
    ]
    told += [f"{one} is {facts.services[one]}" for one in feeding if facts.services[one] != "running"]
    cause = f"producer silent: {' '.join(dict.fromkeys(told)) or ', '.join(feeding) + ' run and bring nothing'}"
    return Late(layer.table_name, age.total_seconds(), cause, "marketflow sources", quiet=True)


_SAID = "select distinct on (service) service, event, detail from ops.service_event order by service, at desc"
_STOPPED = "select service from ops.service_desired where desired = 'stopped'"
# the gate's word of each table counts until a publication has passed it
_REFUSED = """
select subject, string_agg(check_name || ': ' || detail, '; ')
from (
    select distinct on (check_name) subject, check_name, outcome, severity, detail
    from ops.quality_result where stage = 'publish' order by check_name, checked_at desc
) newest
where outcome = 'failed' and severity = 'hard' group by subject
"""


def _gather(settings: Settings, now: datetime) -> Facts:
    with connect(settings) as connection:
        newest = connection.execute("select max(at) from ops.stream_progress").fetchone()
        known: dict[str, Any] = {
            "layers": layers_of(connection, now),
            "stopped": frozenset(row[0] for row in connection.execute(_STOPPED).fetchall()),
            "said": {row[0]: (row[1], row[2]) for row in connection.execute(_SAID).fetchall()},
            "refused": dict(connection.execute(_REFUSED).fetchall()),
            "stream_said_at": newest[0] if newest else None,
            "lag": _lag(settings, connection),
        }
    services = _services(settings)
    return Facts(**known, services=services, airflow=airflow.health(settings) if services else {})


def _lag(settings: Settings, connection: psycopg.Connection[tuple[Any, ...]]) -> dict[str, int] | None:
    """None where Kafka does not answer."""
    try:
        found = lag_of(settings, connection)
    except KafkaException:
        return None
    return found if len(found) == len(TOPICS) else None


def _services(settings: Settings) -> dict[str, str]:
    """Service → state; empty where no service manager answers, as on another machine."""
    try:
        return {name: status.state for name, status in backend(settings).status().items()}
    except MarketflowError:
        return {}
