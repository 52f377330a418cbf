"""The lake's Iceberg tables in the Glue Data Catalog, and the plain exports: written, crawled, read by others."""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import fresh_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalog_stage import Bucket, columns, everything, glue_server
from lake_rows import NOON, append, rows
from pyspark.sql import SparkSession

from marketflow.catalog import connect, layouts
from marketflow.catalog import export as export_module
from marketflow.catalog.crawl import crawl
from marketflow.catalog.export import ExportReport, Scope, export
from marketflow.catalog.prove import prove
from marketflow.contracts.columns import Table
from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.silver import ASSET_PRICES, CANDLES, QUOTES, TRADES
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import ConfigurationError, CrawlError
from marketflow.lake import readers
from marketflow.settings import Settings
from marketflow.stack import catalog as stack_catalog
from marketflow.stack import glue


@pytest.fixture(scope="module")
def settings(lake: SparkSession, embedded: Settings) -> Iterator[Settings]:
    """The embedded lake, every table made, and a Glue API."""
    with glue_server(embedded) as running:
        yield running


@pytest.fixture
def bucket(lake: SparkSession, settings: Settings) -> Bucket:
    """No row in any table, no export, nothing published."""
    fresh_tables.empty(lake, settings, LAKE_TABLES)
    made = Bucket(settings)
    for prefix in (f"{settings.dataset}/export/", f"{settings.dataset}/catalog/"):
        made.empty(prefix)
    client = glue.client(settings)
    for database in client.get_databases()["DatabaseList"]:
        client.delete_database(Name=database["Name"])
    return made


def crawled(bucket: Bucket, *, anew: bool = False) -> Any:
    return crawl(bucket.settings, bucket.client, glue.client(bucket.settings), anew=anew)


def by_glue(settings: Settings, table: Table) -> pa.Table:
    """The rows as PyIceberg reads them, knowing nothing but the Glue API and the S3 API."""
    from pyiceberg.catalog.glue import GlueCatalog

    catalog = GlueCatalog(
        "published",
        **{
            "glue.endpoint": settings.glue_endpoint,
            "glue.region": settings.aws_region,
            "glue.access-key-id": "any",
            "glue.secret-access-key": "any",
            "s3.endpoint": settings.s3_endpoint,
            "s3.access-key-id": settings.secret("s3_access_key"),
            "s3.secret-access-key": settings.secret("s3_secret_key"),
            "s3.region": settings.aws_region,
        },
    )
    return catalog.load_table((settings.namespace(table.layer), table.name)).scan().to_arrow()


def test_every_lake_table_is_published_with_its_contracts_columns_and_reads(lake: SparkSession, bucket: Bucket) -> None:
    settings = bucket.settings
    append(lake, settings, TRADES, rows(TRADES, 40))
    report = crawled(bucket)
    assert report.tables == len(LAKE_TABLES)
    found = everything(glue.client(settings))
    assert set(found) == {f"{settings.namespace(table.layer)}.{table.name}" for table in LAKE_TABLES}
    glue_names = {"string": "string", "int": "int", "bigint": "bigint", "timestamp": "timestamp"}
    for table in LAKE_TABLES:
        said, partitions = found[f"{settings.namespace(table.layer)}.{table.name}"]
        assert said["Parameters"]["table_type"] == "ICEBERG"
        assert columns(said["StorageDescriptor"]) == {
            column.name: glue_names.get(column.type.value, column.type.value) for column in table.columns
        }
        assert partitions == {}
    assert by_glue(settings, TRADES).sort_by("offset").equals(readers.load(settings, TRADES).sort_by("offset"))
    proofs = {one.table: one for one in prove(settings, glue.client(settings))}
    assert {name: one.rows for name, one in proofs.items()} == {
        f"{settings.namespace(table.layer)}.{table.name}": 40 if table is TRADES else 0 for table in LAKE_TABLES
    }
    assert not crawled(bucket).changes


def test_a_published_table_reads_after_the_lake_has_deleted_its_metadata_file(
    lake: SparkSession, bucket: Bucket
) -> None:
    """Bronze commits twice a minute and keeps 20 metadata files: the last crawl's is gone ten minutes later."""
    settings = bucket.settings
    append(lake, settings, TRADES, rows(TRADES, 5, seed=1))
    crawled(bucket)
    source = readers.metadata_location(settings, TRADES)
    for seed in range(2, 25):
        append(lake, settings, TRADES, rows(TRADES, 5, seed=seed))
    assert source.removeprefix("s3://lake/") not in bucket.keys(source.removeprefix("s3://lake/"))
    assert by_glue(settings, TRADES).num_rows == 5
    assert crawled(bucket).changes == ("sim_silver.trades: a newer commit of the lake, 120 rows",)
    assert by_glue(settings, TRADES).num_rows == 24 * 5
    # the copy before stays for whoever is reading it; older ones go
    append(lake, settings, TRADES, rows(TRADES, 5, seed=99))
    crawled(bucket)
    assert len(bucket.keys(f"{settings.dataset}/catalog/sim_silver/trades/")) == 2


def test_copies_that_somebody_deleted_are_put_back_by_a_crawl_that_believes_nothing(
    lake: SparkSession, bucket: Bucket
) -> None:
    settings = bucket.settings
    append(lake, settings, TRADES, rows(TRADES, 5, seed=1))
    crawled(bucket)
    bucket.empty(f"{settings.dataset}/catalog/")
    crawled(bucket)  # nothing is newer, so it has nothing to do
    with pytest.raises(CrawlError, match="anew"):
        prove(settings, glue.client(settings))
    crawled(bucket, anew=True)
    prove(settings, glue.client(settings))
    assert by_glue(settings, TRADES).num_rows == 5


def test_a_new_column_and_a_dropped_table_of_the_lake_are_published(lake: SparkSession, bucket: Bucket) -> None:
    crawled(bucket)
    lake.sql("alter table lake.sim_silver.candles add column quality double")
    lake.sql("drop table lake.sim_silver.quotes purge")
    changes = crawled(bucket).changes
    assert "sim_silver.candles: new column quality (double)" in changes
    assert "sim_silver.quotes: gone" in changes
    lake.sql("drop table lake.sim_silver.candles purge")  # the next test's is the contract's again


def test_a_table_in_a_namespace_of_the_users_own_is_no_part_of_the_crawl(lake: SparkSession, bucket: Bucket) -> None:
    lake.sql("create namespace lake.sim_scratch")
    # a type that the catalog has no place for: it is not looked at either
    lake.sql("create table lake.sim_scratch.x (names array<string>) using iceberg")
    try:
        assert crawled(bucket).tables == len(LAKE_TABLES)
        assert crawled(bucket).changes == ()
        append(lake, bucket.settings, TRADES, rows(TRADES, 5))
        assert crawled(bucket).changes == ("sim_silver.trades: a newer commit of the lake, 5 rows",)
    finally:
        lake.sql("drop table lake.sim_scratch.x purge")
        lake.sql("drop namespace lake.sim_scratch")
    assert not [name for name in everything(glue.client(bucket.settings)) if name.startswith("sim_scratch")]


HOURS = [NOON, NOON + timedelta(hours=1), NOON + timedelta(hours=11, minutes=59, seconds=59, microseconds=999_999)]


def features(product: str, seed: int, at: list[Any] | None = None) -> pa.Table:
    times = at or [hour + timedelta(seconds=n) if hour is not HOURS[-1] else hour for hour in HOURS for n in range(10)]
    return rows(
        TRADE_FEATURES,
        len(times),
        seed,
        product_id=[product] * len(times),
        event_ts=times,
        trade_id=list(range(len(times), 0, -1)),
    )


def exported(bucket: Bucket, scope: Scope | None = None) -> ExportReport:
    return export(bucket.settings, bucket.client, layouts.FEATURES, scope)


def parquet_at(bucket: Bucket, key: str) -> pa.Table:
    body = bucket.client.get_object(Bucket=bucket.settings.lake_bucket, Key=key)["Body"].read()
    return pq.read_table(io.BytesIO(body))


def etags(bucket: Bucket) -> dict[str, tuple[str, Any]]:
    pages = bucket.client.list_objects_v2(Bucket=bucket.settings.lake_bucket, Prefix=bucket.prefix)
    return {one["Key"]: (one["ETag"], one["LastModified"]) for one in pages.get("Contents", ())}


def test_features_are_exported_by_product_date_and_hour_with_the_lakes_own_values(
    lake: SparkSession, bucket: Bucket
) -> None:
    settings = bucket.settings
    put = {product: features(product, seed) for seed, product in enumerate(("BTC-USD", "ETH-USDT"))}
    for data in put.values():
        append(lake, settings, TRADE_FEATURES, data)
    report = exported(bucket)
    assert (report.written, report.rows, report.removed) == (6, 60, 0)
    assert [key for key in bucket.keys(bucket.prefix) if key.endswith(".parquet")] == sorted(
        bucket.key(product, "2026-11-20", hour) for product in put for hour in (12, 13, 23)
    )
    for product, data in put.items():
        for hour in (12, 13, 23):
            found = parquet_at(bucket, bucket.key(product, "2026-11-20", hour))
            mine = [row for row in data.to_pylist() if row["event_ts"].hour == hour]
            mine = [{name: value for name, value in row.items() if name != "product_id"} for row in mine]
            assert found.to_pylist() == sorted(mine, key=lambda row: (row["venue"], row["trade_id"]))
    crawled(bucket)
    proofs = {one.table: one for one in prove(settings, glue.client(settings))}
    assert (proofs["sim_export.features"].rows, proofs["sim_export.features"].partitions) == (60, 6)


def test_a_second_export_writes_nothing_and_a_changed_hour_alone_is_written_again(
    lake: SparkSession, bucket: Bucket
) -> None:
    settings = bucket.settings
    for hour in HOURS[:2]:  # a commit an hour, as gold writes it: a file an hour
        data = features("BTC-USD", hour.hour, [hour + timedelta(seconds=n) for n in range(9)])
        append(lake, settings, TRADE_FEATURES, data)
    exported(bucket)
    before = etags(bucket)
    report = exported(bucket)
    assert (report.written, report.unchanged, report.removed) == (0, 2, 0)
    assert etags(bucket) == before
    append(lake, settings, TRADE_FEATURES, features("BTC-USD", 7, [HOURS[1] + timedelta(seconds=30)]))
    report = exported(bucket)
    assert (report.written, report.unchanged, report.rows) == (1, 1, 10)
    changed = {key for key, what in etags(bucket).items() if before.get(key) != what and key.endswith(".parquet")}
    assert changed == {bucket.key("BTC-USD", "2026-11-20", 13)}
    # a file that somebody deleted or changed is written again, one that somebody put there is taken away
    sound = parquet_at(bucket, bucket.key("BTC-USD", "2026-11-20", 12))
    bucket.delete(bucket.key("BTC-USD", "2026-11-20", 12))
    assert exported(bucket).written == 1
    bucket.put_bytes(bucket.key("BTC-USD", "2026-11-20", 12), b"no Parquet")
    bucket.put_bytes(bucket.key("BTC-USD", "2026-11-20", 13, "part-1.parquet"), b"another")
    report = exported(bucket)
    assert (report.written, report.unchanged) == (2, 0)
    assert parquet_at(bucket, bucket.key("BTC-USD", "2026-11-20", 12)).equals(sound)
    assert len([key for key in bucket.keys(bucket.prefix) if key.endswith(".parquet")]) == 2
    # a memory of before ETags were kept, a lost one, and a broken one
    memory = f"{bucket.prefix}_exported.json"
    told = json.loads(bucket.client.get_object(Bucket="lake", Key=memory)["Body"].read())
    bucket.put_bytes(memory, json.dumps({name: entry[:2] for name, entry in told.items()}).encode())
    report = exported(bucket)
    assert (report.written, report.unchanged) == (0, 2)
    assert json.loads(bucket.client.get_object(Bucket="lake", Key=memory)["Body"].read()) == told
    for damage in (b"{", b"[]", b'{"BTC-USD/2026-11-20/12": 5, "BTC-USD/2026-11-20/13": ["x", 1]}'):
        bucket.put_bytes(memory, damage)
        assert exported(bucket).written == 2, damage
        assert exported(bucket).unchanged == 2, damage
    lake.sql(f"delete from lake.sim_gold.trade_features where event_ts >= timestamp '{HOURS[1].isoformat()}'")
    report = exported(bucket)
    assert (report.written, report.removed) == (0, 1)
    assert [key for key in bucket.keys(bucket.prefix) if key.endswith(".parquet")] == [
        bucket.key("BTC-USD", "2026-11-20", 12)
    ]


def test_what_stands_when_an_export_is_cut_off_is_not_written_again(
    lake: SparkSession, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(lake, bucket.settings, TRADE_FEATURES, features("BTC-USD", 3))
    real, begun = export_module._load, []

    def cut_off(*given: Any) -> pa.Table:
        begun.append(given)
        if len(begun) == 3:
            raise TimeoutError("the task's time is over")
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(export_module, "_load", cut_off)
        with pytest.raises(TimeoutError):
            exported(bucket)
    report = exported(bucket)
    assert report.unchanged == 2
    assert report.written > 0


def test_a_scope_narrows_an_export_to_whole_folders_and_a_strangers_file_is_named(
    lake: SparkSession, bucket: Bucket
) -> None:
    for product in ("BTC-USD", "ETH-USD"):
        append(lake, bucket.settings, TRADE_FEATURES, features(product, 3))
    scope = Scope("ETH-USD", HOURS[1] + timedelta(minutes=5), HOURS[1] + timedelta(minutes=6))
    assert exported(bucket, scope).written == 1
    assert [key for key in bucket.keys(bucket.prefix) if key.endswith(".parquet")] == [
        bucket.key("ETH-USD", "2026-11-20", 13)
    ]
    assert exported(bucket).written == 5
    bucket.put_bytes(f"{bucket.prefix}year=2026/x.parquet", b"")
    with pytest.raises(CrawlError, match=r"year=2026/x.parquet: its folders are not"):
        exported(bucket)


def test_one_products_silver_is_exported_though_not_every_table_has_it(lake: SparkSession, bucket: Bucket) -> None:
    data = rows(TRADES, 2, event_ts=[NOON, NOON], product_id=["BTC-USD", "ETH-USD"])
    append(lake, bucket.settings, TRADES, data)
    reports = stack_catalog.export_silver(bucket.settings, product="BTC-USD")
    assert [one.rows for one in reports] == [1, 0, 0]
    for asked, words in (
        ({"product": "BTC-USDD"}, "no product_id 'BTC-USDD' in silver.trades or .*; there is BTC-USD, ETH-USD"),
        ({"product": "BTC-USD", "tables": ["candles"]}, "no product_id 'BTC-USD' in silver.candles; there is none yet"),
        ({"start": "2026-11-21", "end": "2026-11-20T23:00Z"}, "--start 2026-11-21 is not before --end"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            stack_catalog.export_silver(bucket.settings, **asked)


def test_the_printed_line_opens_the_export(lake: SparkSession, bucket: Bucket) -> None:
    append(lake, bucket.settings, TRADE_FEATURES, features("BTC-USD", 7))
    written = exported(bucket).rows
    assert written > 0
    assert bucket.settings.secret("s3_secret_key") not in connect.lines(bucket.settings)
    text = connect.lines(bucket.settings, show_passwords=True)
    block = text.partition("Plain exports")[2].partition("\n\n")[0]
    known: dict[str, Any] = {}
    exec(textwrap.dedent(block.partition("\n")[2]), known)
    assert known["features"].to_table().num_rows == written


@pytest.mark.parametrize("table", [TRADES, QUOTES, CANDLES, ASSET_PRICES], ids=lambda one: one.name)
def test_silver_is_exported_by_product_and_date_and_reads_through_the_catalog(
    lake: SparkSession, bucket: Bucket, table: Table
) -> None:
    layout = layouts.SILVER[table.name]
    days = [NOON, NOON + timedelta(days=1), NOON + timedelta(days=1, hours=11)]
    owners = ["BTC-USD", "ETH-USD", "BTC-USD"]
    fixed = {layout.time_column: days, layout.owner_column: owners}
    data = rows(table, 3, **fixed)
    append(lake, bucket.settings, table, data)
    report = export(bucket.settings, bucket.client, layout)
    assert (report.written, report.rows) == (3, 3)
    root = f"{bucket.settings.dataset}/export/silver/{table.name}/{layout.owner_column}="
    assert [key for key in bucket.keys(root) if key.endswith(".parquet")] == [
        f"{root}BTC-USD/event_date=2026-11-20/part-0.parquet",
        f"{root}BTC-USD/event_date=2026-11-21/part-0.parquet",
        f"{root}ETH-USD/event_date=2026-11-21/part-0.parquet",
    ]
    (first,) = parquet_at(bucket, f"{root}BTC-USD/event_date=2026-11-20/part-0.parquet").to_pylist()
    assert first == {name: value for name, value in data.to_pylist()[0].items() if name != layout.owner_column}
    crawled(bucket)
    proofs = {one.table: one for one in prove(bucket.settings, glue.client(bucket.settings))}
    assert proofs[f"sim_export.silver_{table.name}"].rows == 3
