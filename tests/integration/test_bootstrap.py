"""`marketflow bootstrap` on servers that have nothing yet of a dataset."""

from __future__ import annotations

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from marketflow import cli
from marketflow.contracts.topics import TOPICS
from marketflow.errors import SetupError
from marketflow.settings import Settings, load
from marketflow.stack import kafka
from marketflow.warehouse.connection import connect


def test_bootstrap_makes_a_datasets_database_and_topics_and_may_be_run_again(
    embedded: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETFLOW_HOME", str(embedded.home))
    monkeypatch.setenv("MARKETFLOW_DATASET", "replay")

    for _ in range(2):
        done = CliRunner().invoke(cli.app, ["bootstrap"])
        assert done.exit_code == 0, done.output
        assert done.output == "dataset replay: database, topics and bucket are there\n"

    settings = load()
    with connect(settings, "marketflow_reader") as connection:
        assert connection.execute("select count(*) from gold.bars").fetchone() is not None
    known = kafka.admin(settings).list_topics(timeout=10).topics
    assert {topic.full_name(settings.topic_prefix) for topic in TOPICS} <= known.keys()


def test_every_partition_of_new_topics_has_a_leader_when_they_are_said_to_be_there(embedded: Settings) -> None:
    for number in range(5):
        settings = embedded.model_copy(update={"dataset": f"led{number}"})
        kafka.create_topics(settings)
        consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "judge"})
        try:
            for topic in TOPICS:
                for partition in range(topic.partitions):
                    name = topic.full_name(settings.topic_prefix)
                    assert consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10) == (0, 0)
        finally:
            consumer.close()


def test_a_partition_without_a_leader_is_named(embedded: Settings) -> None:
    with pytest.raises(SetupError, match=r"3 of 3 partitions have no leader after 1 s, absent\.trades partition 0"):
        kafka.wait_until_led(kafka.admin(embedded), {"absent.trades": 3}, timeout_s=1)


def test_who_only_reads_reaches_its_datasets_database_alone_and_for_ten_minutes_at_most(embedded: Settings) -> None:
    for database in ("airflow", "iceberg_catalog", "postgres"):
        with pytest.raises(psycopg.OperationalError, match=f'permission denied for database "{database}"'):
            connect(embedded, "marketflow_reader", database=database)
    with connect(embedded, "marketflow_reader") as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("10min",)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="temporary"):
            connection.execute("create temporary table mine (x int)")
    for statement in ("select pg_try_advisory_lock(1)", "select pg_advisory_xact_lock(1, 2)", "select lo_create(0)"):
        with (
            connect(embedded, "marketflow_reader") as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"),
        ):
            connection.execute(statement)


def test_a_dataset_that_was_never_started_is_said_to_be_that_and_no_server_to_be_down(embedded: Settings) -> None:
    never = embedded.model_copy(update={"dataset": "aweek"})
    with pytest.raises(SetupError, match=r"dataset aweek was never started here .*make up DATASET=aweek"):
        connect(never)
