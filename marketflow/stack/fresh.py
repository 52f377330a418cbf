"""Emptying a dataset: topics, lake tables, files in the bucket, checkpoints, database. Only ever for dataset replay."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import psycopg
from confluent_kafka.error import KafkaError, KafkaException
from psycopg import sql

from marketflow.catalog import crawl_iceberg
from marketflow.catalog.objects import every_object
from marketflow.contracts.topics import TOPICS
from marketflow.errors import ConfigurationError, SetupError
from marketflow.settings import Settings
from marketflow.stack import kafka, postgres, s3

# a deleted topic is gone a moment after the broker has said yes
TOPICS_GONE_S = 30.0


def empty(settings: Settings) -> None:
    """Forget everything dataset replay holds; any other dataset is refused."""
    if settings.dataset != "replay":
        raise ConfigurationError(f"--fresh empties a dataset and is allowed for replay only, not {settings.dataset}")
    postgres.bootstrap(settings)  # a home that never ran has no roles yet
    _topics(settings)
    _catalog(settings)
    _files(settings)
    checkpoints = Path(settings.checkpoints.removeprefix("file://"))
    if checkpoints.exists():
        shutil.rmtree(checkpoints)
    with psycopg.connect(settings.dsn("postgres", "postgres"), autocommit=True) as connection:
        statement = sql.SQL("drop database if exists {} with (force)")
        connection.execute(statement.format(sql.Identifier(settings.postgres_database)))


def refuse_own(settings: Settings, names: Sequence[str]) -> None:
    """A replay of what `empty` deletes would have no source left, should it be cut off.

    Raises:
        ConfigurationError: one of the addresses is of the dataset's own files.
    """
    for name in names:
        for prefix in _prefixes(settings):
            own = f"s3://{settings.lake_bucket}/{prefix}"
            if name.startswith("s3://") and (name.startswith(own) or own.startswith(name)):
                raise ConfigurationError(
                    f"--fresh would delete {name}, from which it is to read: copy it elsewhere, or leave --fresh out"
                )


def _topics(settings: Settings) -> None:
    names = [topic.full_name(settings.topic_prefix) for topic in TOPICS]
    client = kafka.admin(settings)
    for future in client.delete_topics(names).values():
        try:
            future.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    deadline = time.monotonic() + TOPICS_GONE_S
    while set(names) & client.list_topics(timeout=10).topics.keys():
        if time.monotonic() > deadline:
            raise SetupError(f"Kafka still lists {', '.join(names)} after {TOPICS_GONE_S:.0f} s of deleting them")
        time.sleep(0.2)


def _catalog(settings: Settings) -> None:
    """Take the dataset's tables out of the catalog; their files go with the bucket's folder."""
    with psycopg.connect(settings.dsn("iceberg", "iceberg_catalog")) as connection:
        row = connection.execute("select to_regclass('iceberg_tables')").fetchone()
        if row and row[0]:
            pattern = f"{settings.dataset}\\_%"
            connection.execute("delete from iceberg_tables where table_namespace like %s", (pattern,))
            connection.execute("delete from iceberg_namespace_properties where namespace like %s", (pattern,))


def _files(settings: Settings) -> None:
    client = s3.client(settings)
    s3.create_bucket(settings)
    for prefix in _prefixes(settings):
        for one in every_object(client, settings.lake_bucket, prefix):
            client.delete_object(Bucket=settings.lake_bucket, Key=one.key)


def _prefixes(settings: Settings) -> tuple[str, ...]:
    """The dataset's files in the bucket: lake tables, plain exports, and the catalog's copies of metadata files."""
    return (
        f"warehouse/{settings.dataset}_",
        f"{settings.export_prefix}/",
        crawl_iceberg.copies_root(settings),
    )
