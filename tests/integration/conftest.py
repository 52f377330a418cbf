"""Real PostgreSQL, Kafka and S3 for the whole session, each on a free port under one temporary home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from marketflow.lake.session import spark
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import schema


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a running stack: servers, roles, database with its schema, topics, bucket."""
    home: Path = tmp_path_factory.mktemp("home")
    with temporary_stack(home) as settings:
        schema.apply(settings)
        yield settings


@pytest.fixture(scope="session")
def lake(embedded: Settings) -> Iterator[SparkSession]:
    """A Spark session on the embedded lake with every table made."""
    session = spark(embedded, "tests")
    apply_contracts(session, embedded)
    yield session
    session.stop()
