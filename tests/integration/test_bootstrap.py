"""`marketflow bootstrap` on servers that have nothing yet of a dataset."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from marketflow import cli
from marketflow.contracts.topics import TOPICS
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
