"""Dag crawl_catalog by Airflow's own loop on a real lake, S3 and Glue API, beside a proxy that lets nothing through."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import boto3
import fresh_tables
import pytest
from black_hole import black_hole
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from catalog_stage import Bucket, everything, glue_server
from lake_rows import NOON, append, rows
from moto.server import ThreadedMotoServer
from pyspark.sql import SparkSession

from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.settings import Settings
from marketflow.stack import airflow, glue
from marketflow.stack.servers import free_ports

TIMES = [NOON + timedelta(minutes=20 * number) for number in range(6)]


@pytest.fixture(scope="module")
def settings(lake: SparkSession, embedded: Settings) -> Iterator[Settings]:
    """The embedded lake and a Glue API; six rows of features over two hours."""
    fresh_tables.empty(lake, embedded, [TRADE_FEATURES])
    products = ["BTC-USD"] * len(TIMES)
    append(lake, embedded, TRADE_FEATURES, rows(TRADE_FEATURES, len(TIMES), event_ts=TIMES, product_id=products))
    Bucket(embedded).empty()
    with glue_server(embedded) as running:
        yield running


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the Dag with this home's connections; `variables` are added to its environment."""

    def once(conf: dict[str, Any] | None = None, **variables: str) -> dict[str, str]:
        environment = {
            "MARKETFLOW_HOME": str(settings.home),
            "MARKETFLOW_GLUE_PORT": str(settings.glue_port),
            **airflow.connections(settings),
            **variables,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        airflow_home.fresh_database()
        from airflow.dag_processing.dagbag import DagBag

        dag = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder").dags["crawl_catalog"]
        for task in dag.tasks:
            task.retries = 0  # a test does not wait for what is tried again
            if task.task_id == "run_crawler":
                task.wait_for_completion = False  # moto's crawler never ends
        found = dag.test(run_conf=conf)
        return {one.task_id: str(one.state) for one in found.get_task_instances()}

    return once


def test_the_dag_exports_publishes_and_proves_and_never_leaves_loopback(
    settings: Settings, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with black_hole(monkeypatch) as hole:
        states = run()
        asked, left = list(hole.asked), set(hole.left)
    assert states == {
        "export_features": "success",
        "choose": "success",
        "publish": "success",
        "prove": "success",
        "describe_crawler": "skipped",
        "find_crawler": "skipped",
        "create_crawler": "skipped",
        "update_crawler": "skipped",
        "run_crawler": "skipped",
    }
    assert (asked, left) == ([], set())
    _, partitions = everything(glue.client(settings))["sim_export.features"]
    assert set(partitions) == {("BTC-USD", "2026-11-20", "12"), ("BTC-USD", "2026-11-20", "13")}
    assert emitted()["sim_export.features"] == len(TIMES)


def test_the_black_hole_hears_a_client_that_would_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this the test above would pass where nobody listens."""
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any", "region_name": "us-east-1"}
    once = {"retries": {"max_attempts": 0}, "connect_timeout": 2, "read_timeout": 2}
    with black_hole(monkeypatch) as hole:
        with pytest.raises(BotoCoreError):
            boto3.client("glue", **keys, config=Config(**once)).get_databases()
        with pytest.raises(BotoCoreError):
            boto3.client("s3", **keys, config=Config(**once, proxies={})).list_buckets()
        asked, left = list(hole.asked), set(hole.left)
    assert any("glue.us-east-1.amazonaws.com" in line for line in asked), asked
    assert any("amazonaws.com" in host for host in left), left


def test_a_conflict_fails_publish_and_leaves_prove_undone(settings: Settings, run: Any) -> None:
    bucket = Bucket(settings)
    before = everything(glue.client(settings))
    stray = f"{bucket.prefix}product_id=BTC-USD/event_date=2026-11-20/stray.parquet"
    bucket.put_bytes(stray, b"")
    try:
        states = run()
    finally:
        bucket.delete(stray)
    assert states["export_features"] == "failed"
    assert states["prove"] == "upstream_failed"
    assert everything(glue.client(settings)) == before


def test_a_key_that_the_form_does_not_have_fails_the_run_before_it_does_anything(run: Any) -> None:
    assert run({"everything": True})["export_features"] == "failed"


def test_on_aws_the_providers_operators_create_then_update_and_run_glues_crawler(
    settings: Settings, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against moto's Glue and Athena: it takes the requests as AWS would, and crawls nothing; so nothing is proven."""
    port = free_ports(1)[0]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    aws = {
        "MARKETFLOW_DEPLOYMENT": "aws",
        "MARKETFLOW_CRAWLER": "glue",
        "MARKETFLOW_GLUE_CRAWLER_ROLE": "arn:aws:iam::123456789012:role/crawler",
        "AIRFLOW_CONN_LAKE_AWS": json.dumps(
            {
                "conn_type": "aws",
                "login": "any",
                "password": "any",
                "extra": {"endpoint_url": address, "region_name": "us-east-1"},
            }
        ),
    }
    monkeypatch.setattr("marketflow_airflow.catalog.export_features", lambda context, known: {})
    client = boto3.client(
        "glue", endpoint_url=address, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any"
    )
    name, tasks = "marketflow-sim-export", ("create_crawler", "update_crawler", "run_crawler")
    try:
        first = run(**aws)
        assert [first[task] for task in tasks] == ["success", "skipped", "success"]
        crawler = client.get_crawler(Name=name)["Crawler"]
        assert crawler["State"] == "RUNNING"
        # moto ends a crawl when it is listed: the second run would join this one otherwise
        assert [one["State"] for one in client.list_crawls(CrawlerName=name)["Crawls"]] == ["COMPLETED"]
        second = run(**aws)
        assert [second[task] for task in tasks] == ["skipped", "success", "success"]
        crawls = client.list_crawls(CrawlerName=name)["Crawls"]
    finally:
        server.stop()
    assert crawler["Role"] == "arn:aws:iam::123456789012:role/crawler"
    assert crawler["DatabaseName"] == "sim_export"
    assert [one["Path"] for one in crawler["Targets"]["S3Targets"]] == [
        "s3://lake/sim/export/features/",
        "s3://lake/sim/export/silver/trades/",
        "s3://lake/sim/export/silver/quotes/",
        "s3://lake/sim/export/silver/candles/",
        "s3://lake/sim/export/silver/asset_prices/",
    ]
    assert crawler["SchemaChangePolicy"]["DeleteBehavior"] == "DELETE_FROM_DATABASE"
    assert len({one["CrawlId"] for one in crawls}) == 2, "each run started a crawl of its own"
    assert (first["publish"], second["publish"]) == ("skipped", "skipped")


def emitted() -> dict[str, int]:
    """What the catalog's asset event says of each table."""
    from airflow import settings as airflow_settings
    from sqlalchemy import text

    with airflow_settings.engine.connect() as connection:
        statement = "select asset_event.extra from asset_event join asset on asset.id = asset_event.asset_id"
        (extra,) = connection.execute(text(f"{statement} where asset.name = 'glue.catalog'")).fetchone()
        return json.loads(extra)["tables"]
