"""`make up`: from nothing to live prices in Postgres, in steps that say what they do. Safe to run again."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg

from marketflow.catalog import movers, render
from marketflow.catalog.queries import run_on_postgres
from marketflow.contracts.silver import ASSET_PRICES
from marketflow.errors import ConfigurationError, SetupError
from marketflow.services.flapping import why_flapping
from marketflow.services.supervisor import SupervisorBackend
from marketflow.settings import Settings, load
from marketflow.simulator import configuration
from marketflow.stack import airflow, airflow_production, kafka, ports, postgres, s3, secrets, status
from marketflow.stack.announce import check_plans, warm_up
from marketflow.stack.backend import backend
from marketflow.stack.definitions import STREAM
from marketflow.warehouse import schema
from marketflow.warehouse.connection import connect

Say = Callable[[str], None]
FIRST_ROWS_TIMEOUT_S = 240.0
SETTLE_S = 20.0


class _Steps:
    """Prints each step with the seconds since the start."""

    def __init__(self, say: Say) -> None:
        self._say, self._start = say, time.monotonic()

    def __call__(self, text: str) -> None:
        self._say(f"[{time.monotonic() - self._start:5.1f} s] {text}")


def _prepare(settings: Settings, supervisor: SupervisorBackend, step: _Steps) -> Settings:
    """Ports and files; only what is not there yet, and no port moves under a running stack."""
    if not supervisor.client.is_up():
        for note in ports.record(settings):
            step(note)
        settings = load(dataset=settings.dataset, home=settings.home)
    for module in (postgres, kafka, s3, airflow):
        module.prepare(settings)
    return settings


def _infrastructure(settings: Settings, supervisor: SupervisorBackend, step: _Steps) -> None:
    step("starting PostgreSQL, Kafka and the S3 API")
    for name in ("postgres", "kafka", "s3"):
        supervisor.start(name)
    postgres.wait_until_ready(settings)
    postgres.bootstrap(settings)
    for table, changes in schema.apply(settings).items():
        if changes != ["created"]:
            step(f"{table}: {', '.join(changes)}")
    s3.wait_until_ready(settings)
    s3.create_bucket(settings)
    kafka.wait_until_ready(settings)
    kafka.create_topics(settings)


def _start(supervisor: SupervisorBackend, settings: Settings, groups: set[str]) -> set[str]:
    """Start what should run: all of these groups but what a person stopped. Returns what was started, or ran."""
    with connect(settings, autocommit=True) as connection:
        rows = connection.execute("select service from ops.service_desired where desired = 'stopped'").fetchall()
    stopped = {name for (name,) in rows}
    chosen = {
        one.name
        for one in supervisor.definitions.values()
        if one.group in groups and one.autostart and one.name not in stopped
    }
    for name in supervisor.definitions:  # in starting order
        if name in chosen:
            supervisor.start(name)
    return chosen


def why_no_rows(settings: Settings, started: set[str]) -> str | None:
    """Why no live row of a price can come, where that is so: a sentence's second half."""
    if STREAM not in started:
        return f"{STREAM} is not to run: somebody stopped it (Dag market_stream starts it), or a replay does"
    if settings.dataset == "sim" and "simulator" not in started:
        return "the simulated exchange is not to run: somebody stopped it (Dag producers starts it)"
    prices = [source for source in settings.active_sources if ASSET_PRICES.name in source.brings]
    if not any(source.service in started for source in prices):
        return "no source that is asked for prices is to run (settings, or somebody stopped it: Dag producers)"
    return None


def _wait_for_rows(settings: Settings, supervisor: SupervisorBackend, since: datetime, step: _Steps) -> bool:
    """Whether they came; a stream that crashes again and again is not waited for, but shown to whoever can mend it."""
    deadline, next_word = time.monotonic() + FIRST_ROWS_TIMEOUT_S, time.monotonic() + 20
    while True:
        newest = run_on_postgres(settings, "select max(polled_at) from live.asset_observation").rows[0][0]
        if newest and newest >= since:
            return True
        flapping = why_flapping(supervisor.status()[STREAM], datetime.now(UTC))
        if flapping:
            step(f"waiting for live rows no longer: {STREAM} is flapping. {flapping} `marketflow logs {STREAM}`")
            return False
        if time.monotonic() > deadline:
            raise SetupError(
                f"no live row arrived within {FIRST_ROWS_TIMEOUT_S:.0f} s; `marketflow doctor` says what is sick"
            )
        if time.monotonic() > next_word:
            step("still waiting for the first live rows (Spark starts, then the first poll)")
            next_word += 20
        time.sleep(0.5)


def _first_prices(settings: Settings, since: datetime) -> str:
    columns = "source, symbol, price, change_1min, change_5min, sma_5m, ema_3m, ts"
    newest = f"select {columns} from live.price_metrics where polled_at >= '{since.isoformat()}'"  # noqa: S608 - a time
    result = run_on_postgres(settings, f"{newest} order by ts desc, market_cap_rank limit 5")
    return render.table(result.columns, result.rows)


def run(settings: Settings, say: Say) -> None:
    """Start everything, wait for the first live rows, then start Airflow, which owns the services from then on."""
    step = _Steps(say)
    if settings.dataset == "sim":
        configuration.check(settings)
    check_plans(settings)
    secrets.ensure(settings)  # first of all: the services' environments hold them
    supervisor = backend(settings)
    _refuse_another_dataset(settings, supervisor)
    settings = _prepare(settings, supervisor, step)
    if settings.dataset == "live":
        for line in warm_up(settings):
            step(line)
    supervisor = backend(settings)
    supervisor.up()
    _infrastructure(settings, supervisor, step)
    since = _now(settings)
    step(f"starting the {'simulated exchange, ' if settings.dataset == 'sim' else ''}producers and the Spark stream")
    why_none = why_no_rows(settings, _start(supervisor, settings, {"feed", "stream"}))
    if airflow.migrate(settings):
        step("made Airflow's metadata database")
    if why_none:
        step(f"waiting for no live rows: {why_none}")
    elif _wait_for_rows(settings, supervisor, since, step):
        step("first live rows are in PostgreSQL")
        say(_first_prices(settings, since))
    step("starting the Glue API, Airflow and the watch over all of it")
    _start(supervisor, settings, {"catalog", "airflow", "watch"})
    airflow.wait_until_healthy(settings)
    _refuse_what_does_not_run(supervisor)
    step("everything runs")
    _farewell(settings, say)


def _refuse_what_does_not_run(supervisor: SupervisorBackend) -> None:
    """A service may end once and come back; one that is still paused after a while will not come by itself."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        sick = {n: one for n, one in supervisor.status().items() if one.state not in ("running", "starting", "stopped")}
        if not sick:
            return
        if time.monotonic() > deadline:
            told = "; ".join(
                f"{name} is {one.state}{': ' + one.detail if one.detail else ''}" for name, one in sick.items()
            )
            raise SetupError(f"not everything runs: {told}. `marketflow doctor` says why; the rest goes on")
        time.sleep(1)


def _refuse_another_dataset(settings: Settings, supervisor: SupervisorBackend) -> None:
    """One home runs one dataset at a time: the other's producers would be replaced without a word."""
    note, running = settings.home / "run" / "dataset", status.running_dataset(settings)
    if supervisor.client.is_up() and running != settings.dataset:
        raise ConfigurationError(
            f"MARKETFLOW_DATASET: {running} runs in this home, not {settings.dataset}: `make down` first, or give the "
            "other a MARKETFLOW_HOME of its own"
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(f"{settings.dataset}\n")


def _now(settings: Settings) -> datetime:
    try:
        now: datetime = run_on_postgres(settings, "select now()").rows[0][0]
    except psycopg.Error as error:
        raise SetupError(f"PostgreSQL does not answer: {error}") from error
    return now


def _farewell(settings: Settings, say: Say) -> None:
    from_when = movers.latest(settings).possible_from
    say("")
    if from_when:
        say(f"Five-minute movers exist from {from_when:%H:%M:%S} UTC (five minutes of data): marketflow movers --watch")
    first, *others = airflow_production.users(settings)
    say(f"Airflow: {airflow.base_url(settings)}  user {first} (or {' or '.join(others)})")
    say(f"         its password is in {airflow.home(settings) / 'passwords.json'}")
    say("Next: marketflow status | movers | sql --list | connect | verify      Stop: make down")
