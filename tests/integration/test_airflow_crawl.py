"""Dag crawl_catalog by Airflow's own loop on a real lake, S3 and Glue API, beside a proxy that lets nothing through."""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home

# isort: split
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import aws_stage
import boto3
import fresh_tables
import pyarrow.parquet as pq
import pytest
from black_hole import black_hole
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from catalog_stage import Bucket, everything, glue_server
from lake_rows import NOON, append, rows
from pyspark.sql import SparkSession

from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.settings import Settings
from marketflow.stack import airflow, glue

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
    name, tasks = "marketflow-sim-export", ("create_crawler", "update_crawler", "run_crawler")
    with on_aws(settings, monkeypatch) as (variables, keys):
        glues = {"MARKETFLOW_CRAWLER": "glue", "MARKETFLOW_GLUE_CRAWLER_ROLE": "arn:aws:iam::123456789012:role/crawler"}
        client = boto3.client("glue", **keys)
        first = run(**variables, **glues)
        assert [first[task] for task in tasks] == ["success", "skipped", "success"]
        assert exported(boto3.client("s3", **keys)) == PARTS
        crawler = client.get_crawler(Name=name)["Crawler"]
        assert crawler["State"] == "RUNNING"
        # moto ends a crawl when it is listed: the second run would join this one otherwise
        assert [one["State"] for one in client.list_crawls(CrawlerName=name)["Crawls"]] == ["COMPLETED"]
        second = run(**variables, **glues)
        assert [second[task] for task in tasks] == ["skipped", "success", "success"]
        crawls = client.list_crawls(CrawlerName=name)["Crawls"]
    assert (first["export_features"], second["export_features"]) == ("success", "success")
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


def test_on_aws_our_own_crawl_publishes_what_was_exported_from_the_table_that_glue_names(
    settings: Settings, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the proof: moto's Athena answers no query."""
    with on_aws(settings, monkeypatch) as (variables, keys):
        states = run(**variables)
        assert [states[task] for task in ("export_features", "choose", "publish")] == ["success"] * 3
        assert exported(boto3.client("s3", **keys)) == PARTS
        client = boto3.client("glue", **keys)
        found = client.get_partitions(DatabaseName="sim_export", TableName="features")["Partitions"]
        # the lake's own table is as its commit left it
        own = client.get_table(DatabaseName="sim_gold", Name="trade_features")["Table"]["Parameters"]
    assert {tuple(one["Values"]) for one in found} == {("BTC-USD", "2026-11-20", hour) for hour in ("12", "13")}
    assert own["table_type"] == "ICEBERG"
    assert "/warehouse/sim_gold/trade_features/metadata/" in own["metadata_location"]


PARTS = {
    f"sim/export/features/product_id=BTC-USD/event_date=2026-11-20/hour={hour}/part-0.parquet": 3 for hour in (12, 13)
}


@contextmanager
def on_aws(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Moto with the same six rows of features in a table of its Glue: variables for a run, and what a client needs."""
    with aws_stage.moto_server() as address:
        variables = aws_stage.variables(address)
        for name, value in aws_stage.KEYS.items():
            monkeypatch.setenv(name, value)
        told = {"deployment": "aws", "s3_endpoint_url": address, "glue_endpoint_url": address}
        data = rows(TRADE_FEATURES, len(TIMES), event_ts=TIMES, product_id=["BTC-USD"] * len(TIMES))
        aws_stage.write(settings.model_copy(update=told), {TRADE_FEATURES: [data]})
        # keys are the environment's, as with a role
        extra = {"endpoint_url": address, "region_name": settings.aws_region}
        connection = json.dumps({"conn_type": "aws", "extra": extra})
        yield variables | {"AIRFLOW_CONN_LAKE_AWS": connection}, extra


def exported(client: Any) -> dict[str, int]:
    """Rows of each Parquet file of the features' export."""
    listed = client.list_objects_v2(Bucket="lake", Prefix="sim/export/features/")["Contents"]
    keys = [one["Key"] for one in listed if one["Key"].endswith(".parquet")]
    bodies = {key: client.get_object(Bucket="lake", Key=key)["Body"].read() for key in keys}
    return {key: pq.read_table(io.BytesIO(body)).num_rows for key, body in bodies.items()}


def emitted() -> dict[str, int]:
    """What the catalog's asset event says of each table."""
    from airflow import settings as airflow_settings
    from sqlalchemy import text

    with airflow_settings.engine.connect() as connection:
        statement = "select asset_event.extra from asset_event join asset on asset.id = asset_event.asset_id"
        (extra,) = connection.execute(text(f"{statement} where asset.name = 'glue.catalog'")).fetchone()
        return json.loads(extra)["tables"]
