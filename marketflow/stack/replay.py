"""`marketflow replay`: recorded payloads through every layer of dataset replay, and where each of them went."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marketflow.catalog import render as text
from marketflow.contracts.gold import GOLD_TABLES
from marketflow.errors import ConfigurationError, MarketflowError
from marketflow.ingest.replay import ReplaySummary, replay_files
from marketflow.lake import readers
from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment, python
from marketflow.settings import Settings, load
from marketflow.stack import fresh as fresh_dataset
from marketflow.stack import kafka, ports, postgres, replay_source, s3, secrets
from marketflow.stack.backend import backend
from marketflow.stack.outage import end_offsets
from marketflow.stack.servers import die_with_parent
from marketflow.warehouse import schema
from marketflow.warehouse.connection import connect
from marketflow.warehouse.publish import publish

Say = Callable[[str], None]
INFRASTRUCTURE = ("postgres", "kafka", "s3")


@dataclass(frozen=True, slots=True)
class Accounting:
    """Where everything went. `balanced` is true when nothing is unaccounted for."""

    files: list[dict[str, Any]]
    kafka: dict[str, int]
    bronze: dict[str, int]
    silver: list[dict[str, Any]]
    rejected: list[dict[str, Any]]
    gold: dict[str, int]
    problems: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """Whether every message is in bronze and every message and item of silver is accounted for."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        names = ("files", "kafka", "bronze", "silver", "rejected", "gold", "problems")
        return {"balanced": self.balanced, **{name: getattr(self, name) for name in names}}


@contextmanager
def _servers(settings: Settings, say: Say) -> Iterator[Settings]:
    """PostgreSQL, Kafka and S3: those of a running stack, else started for this replay and stopped after it.

    Gives the settings with the ports that they have: another stack of this machine may hold the usual ones.
    """
    if settings.deployment != "embedded":
        yield settings
        return
    secrets.ensure(settings)
    supervisor = backend(settings)
    was_up = supervisor.client.is_up()
    if not was_up:
        say("no stack is up: starting PostgreSQL, Kafka and S3 for this replay")
        for note in ports.record(settings):
            say(note)
        settings = load(dataset=settings.dataset, home=settings.home)
        supervisor = backend(settings)
        for module in (postgres, kafka, s3):
            module.prepare(settings)
        supervisor.launch(INFRASTRUCTURE)
    try:
        wait_for_servers(settings)
        yield settings
    finally:
        if not was_up:
            supervisor.shutdown()


def wait_for_servers(settings: Settings) -> None:
    """Until PostgreSQL, S3 and Kafka answer; SetupError with the server's own words where one does not."""
    postgres.wait_until_ready(settings)
    s3.wait_until_ready(settings)
    kafka.wait_until_ready(settings)


def prepare_dataset(settings: Settings) -> None:
    """Database, tables, bucket and topics of the dataset. Safe to run again."""
    postgres.bootstrap(settings)
    schema.apply(settings)
    s3.create_bucket(settings)
    kafka.create_topics(settings)


def run_job(settings: Settings, name: str, *arguments: str) -> None:
    """Run one program of spark_jobs/ in this dataset; MarketflowError with its last lines when it fails."""
    log = settings.home / "logs" / f"{settings.dataset}-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [python(), str(PROJECT_FOLDER / "spark_jobs" / f"{name}.py"), *arguments]
    with log.open("ab") as output:
        done = subprocess.run(  # noqa: S603 - our own script
            command,
            env=embedded_environment(settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            check=False,
        )
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise MarketflowError(f"{name} ended with {done.returncode}; the end of {log}:\n{tail}")


def run(settings: Settings, files: Sequence[str], *, fresh: bool, say: Say, **options: str | None) -> Accounting:
    """Send the files, run stream, silver, gold and publication once, and account for everything.

    Raises:
        ConfigurationError: a file is missing, would be deleted by `fresh`, or what it holds cannot be told without an
            option.
    """
    if fresh:
        fresh_dataset.refuse_own(settings, files)
    with _servers(settings, say) as ready, replay_source.local(ready, files) as paths:
        return run_on_servers(ready, paths, fresh=fresh, say=say, **options)


def run_on_servers(
    settings: Settings, files: Sequence[Path], *, fresh: bool, say: Say, **options: str | None
) -> Accounting:
    """`run` where PostgreSQL, Kafka and S3 are up already."""
    missing = [str(path) for path in files if not path.exists()]
    if missing:
        raise ConfigurationError(f"no such file: {', '.join(missing)}")
    if fresh:
        say("emptying dataset replay")
        fresh_dataset.empty(settings)
    prepare_dataset(settings)
    say(f"reading {len(files)} file{'s' if len(files) > 1 else ''}")
    summary = replay_files(settings, files, progress=lambda path, n: say(f"  {path.name}: {n}"), **options)
    say(f"{summary.messages} messages are in Kafka; running the stream until it has them all")
    run_job(settings, "stream_market", "--available-now")
    say("running silver and gold")
    run_job(settings, "advance", "--days")
    say("publishing gold to PostgreSQL")
    for table in GOLD_TABLES:
        publish(settings, table.qualified)
    return _account(settings, summary)


def _account(settings: Settings, summary: ReplaySummary) -> Accounting:
    kafka_counts = {topic: sum(end_offsets(settings, topic).values()) for topic in summary.by_topic}
    with readers.duckdb(settings) as lake:
        bronze = {
            topic: lake.execute(
                f'select count(distinct (partition, "offset")) from bronze.{topic.split(".")[-2]}_raw'  # noqa: S608 - contract name
            ).fetchone()[0]
            for topic in kafka_counts
        }
        rejected = lake.execute(
            "select source_table, venue, reason, count(*) as items from silver.rejected group by all order by all"
        )
        names = [column[0] for column in rejected.description]
        rejects = [dict(zip(names, row, strict=True)) for row in rejected.fetchall()]
        gold = {
            name: lake.execute(f"select count(*) from {name}").fetchone()[0]  # noqa: S608 - literal names
            for name in (table.qualified for table in GOLD_TABLES)
        }
    silver = _silver(settings)
    with connect(settings, "marketflow_reader") as connection:
        served = {name: connection.execute(f"select count(*) from {name}").fetchone() for name in gold}  # noqa: S608 - literal names
    problems = [
        f"{topic}: {count} messages in Kafka, {bronze[topic]} in bronze"
        for topic, count in kafka_counts.items()
        if bronze[topic] != count
    ]
    problems += [
        f"{name}: {gold[name]} rows in the lake, {row[0]} in PostgreSQL"
        for name, row in served.items()
        if row and row[0] != gold[name]
    ]
    problems += _unbalanced(silver, kafka_counts, settings)
    return Accounting([_file(one) for one in summary.files], kafka_counts, bronze, silver, rejects, gold, problems)


def _file(one: Any) -> dict[str, Any]:
    return {
        "file": one.path.name,
        "venue": one.venue,
        "messages": one.messages,
        "reconstructed": one.reconstructed,
    }


def _silver(settings: Settings) -> list[dict[str, Any]]:
    columns = "messages, ignored, parsed, unparseable, items, accepted, duplicate, rejected"
    sums = ", ".join(f"sum({name})::bigint as {name}" for name in columns.split(", "))
    with connect(settings, "marketflow_reader") as connection:
        query = f"select table_name, {sums} from ops.silver_accounting group by 1 order by 1"  # noqa: S608 - own names
        cursor = connection.execute(query)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _unbalanced(silver: list[dict[str, Any]], in_kafka: dict[str, int], settings: Settings) -> list[str]:
    sources = {"silver.trades": "crypto.trades.raw", "silver.quotes": "crypto.ticker.raw"}
    sources |= {"silver.asset_prices": "crypto.prices.raw", "silver.candles": "crypto.candles.raw"}
    by_table = {row["table_name"]: row for row in silver}
    problems = []
    for table, topic in sources.items():
        sent = in_kafka.get(f"{settings.topic_prefix}{topic}", 0)
        row = by_table.get(table)
        seen = row["messages"] if row else 0
        if seen != sent:
            problems.append(f"{table}: {sent} messages in Kafka, {seen} accounted for")
        if row and row["ignored"] + row["parsed"] + row["unparseable"] != row["messages"]:
            problems.append(f"{table}: ignored + parsed + unparseable is not messages")
        if row and row["accepted"] + row["duplicate"] + row["rejected"] != row["items"]:
            problems.append(f"{table}: accepted + duplicate + rejected is not items")
    return problems


def render(accounting: Accounting) -> str:
    """The same for a person."""
    parts = [
        text.records(accounting.files),
        text.table(
            ("topic", "in Kafka", "in bronze"),
            [(name, count, accounting.bronze[name]) for name, count in accounting.kafka.items()],
        ),
        text.records(accounting.silver),
        text.records(accounting.rejected),
        "gold rows: " + ", ".join(f"{name} {count}" for name, count in accounting.gold.items()),
        "every message and item is accounted for" if accounting.balanced else "\n".join(accounting.problems),
    ]
    return "\n\n".join(parts)
