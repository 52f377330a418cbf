"""Emptying a dataset: topics, lake tables and their files, checkpoints, database. Only ever for dataset replay."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
from confluent_kafka.error import KafkaError, KafkaException
from psycopg import sql

from marketflow.contracts.topics import TOPICS
from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.stack import kafka, s3


def empty(settings: Settings) -> None:
    """Forget everything dataset replay holds; any other dataset is refused."""
    if settings.dataset != "replay":
        raise ConfigurationError(f"--fresh empties a dataset and is allowed for replay only, not {settings.dataset}")
    _topics(settings)
    _catalog(settings)
    _files(settings)
    shutil.rmtree(settings.checkpoints.removeprefix("file://"), ignore_errors=not Path(settings.home).exists())
    with psycopg.connect(settings.dsn("postgres", "postgres"), autocommit=True) as connection:
        statement = sql.SQL("drop database if exists {} with (force)")
        connection.execute(statement.format(sql.Identifier(settings.postgres_database)))


def _topics(settings: Settings) -> None:
    names = [topic.full_name(settings.topic_prefix) for topic in TOPICS]
    for future in kafka.admin(settings).delete_topics(names).values():
        try:
            future.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise


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
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=settings.lake_bucket, Prefix=f"warehouse/{settings.dataset}_"
    )
    for page in pages:
        for item in page.get("Contents", ()):
            client.delete_object(Bucket=settings.lake_bucket, Key=item["Key"])
