"""The crawl of the plain export on a real S3 API into a real Glue API, each step judged by plain boto3."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from catalog_stage import Bucket, columns, everything, glue_server, parquet

from marketflow.catalog import connect
from marketflow.catalog.crawl import CrawlReport, crawl
from marketflow.catalog.glue_tables import FILES
from marketflow.catalog.objects import every_object
from marketflow.catalog.prove import Proof, prove
from marketflow.errors import BusyError, CrawlError
from marketflow.settings import Settings
from marketflow.stack import glue, postgres
from marketflow.warehouse import schema
from marketflow.warehouse.locks import table_lock

DAY = "2026-11-20"
FIRST = (("BTC-USD", 5), ("BTC-USD", 6), ("ETH-USD", 5))
PRICES = pa.array([Decimal("1.5"), Decimal("2.25")], pa.decimal128(38, 18))
TIMES = pa.array([1_700_000_000_000_000, 1_700_000_001_000_000], pa.timestamp("us", tz="UTC"))


def rows(**more: pa.Array) -> dict[str, pa.Array]:
    return {"trade_id": pa.array([1, 2]), "price": PRICES, "event_ts": TIMES, **more}


@pytest.fixture(scope="module")
def settings(embedded: Settings) -> Iterator[Settings]:
    """A dataset that has no lake, so that the export is all there is."""
    made = embedded.model_copy(update={"dataset": "replay"})
    postgres.bootstrap(made)
    schema.apply(made)
    with glue_server(made) as running:
        yield running


@pytest.fixture
def bucket(settings: Settings) -> Bucket:
    """Three hours of two products; nothing is published."""
    client = glue.client(settings)
    for database in client.get_databases()["DatabaseList"]:
        client.delete_database(Name=database["Name"])
    made = Bucket(settings)
    made.empty()
    for product, hour in FIRST:
        made.put(made.key(product, DAY, hour), rows())
    return made


def crawled(bucket: Bucket, *, anew: bool = False) -> CrawlReport:
    bucket.gets.clear()
    return crawl(bucket.settings, bucket.client, glue.client(bucket.settings), anew=anew)


def said(bucket: Bucket) -> tuple[dict[str, object], dict[tuple[str, ...], tuple[dict[str, object], dict[str, str]]]]:
    found = everything(glue.client(bucket.settings))
    assert set(found) == {"replay_export.features"}
    return found["replay_export.features"]


def proven(bucket: Bucket) -> list[Proof]:
    return prove(bucket.settings, glue.client(bucket.settings))


def test_the_first_crawl_makes_database_table_and_partitions_that_read(bucket: Bucket) -> None:
    report = crawled(bucket)
    assert (report.tables, report.partitions) == (1, 3)
    table, partitions = said(bucket)
    expected = {"trade_id": "bigint", "price": "decimal(38,18)", "event_ts": "timestamp"}
    assert columns(table["StorageDescriptor"]) == expected
    assert table["PartitionKeys"] == [
        {"Name": "product_id", "Type": "string"},
        {"Name": "event_date", "Type": "date"},
        {"Name": "hour", "Type": "int"},
    ]
    root = f"s3://lake/{bucket.prefix}"
    assert {values: one["Location"] for values, (one, _) in partitions.items()} == {
        ("BTC-USD", DAY, "05"): f"{root}product_id=BTC-USD/event_date={DAY}/hour=05/",
        ("BTC-USD", DAY, "06"): f"{root}product_id=BTC-USD/event_date={DAY}/hour=06/",
        ("ETH-USD", DAY, "05"): f"{root}product_id=ETH-USD/event_date={DAY}/hour=05/",
    }
    assert all(columns(one) == expected for one, _ in partitions.values())
    assert proven(bucket) == [Proof("replay_export.features", "duckdb", 6, 6, 3)]


def test_an_unchanged_export_is_listed_and_no_file_is_opened_and_nothing_written(bucket: Bucket) -> None:
    crawled(bucket)
    before = everything(glue.client(bucket.settings))
    report = crawled(bucket)
    assert (report.changes, report.partitions, bucket.gets) == ((), 3, [])
    assert everything(glue.client(bucket.settings)) == before


def test_only_what_changed_is_opened_and_new_columns_partitions_and_vanished_ones_are_published(bucket: Bucket) -> None:
    crawled(bucket)
    bucket.put(bucket.key("BTC-USD", DAY, 6), rows(signed_volume=pa.array([0.5, -0.5])))
    bucket.put(bucket.key("BTC-USD", DAY, 7), rows())
    bucket.delete(bucket.key("ETH-USD", DAY, 5))
    report = crawled(bucket)
    assert sorted(bucket.gets) == [bucket.key("BTC-USD", DAY, 6), bucket.key("BTC-USD", DAY, 7)]
    assert report.changes == (
        "replay_export.features: new column signed_volume (double)",
        "replay_export.features: partitions 1 new, 1 changed, 1 gone",
    )
    table, partitions = said(bucket)
    assert list(columns(table["StorageDescriptor"])) == ["trade_id", "price", "event_ts", "signed_volume"]
    assert {values: "signed_volume" in columns(one) for values, (one, _) in partitions.items()} == {
        ("BTC-USD", DAY, "05"): False,
        ("BTC-USD", DAY, "06"): True,
        ("BTC-USD", DAY, "07"): False,
    }
    assert proven(bucket) == [Proof("replay_export.features", "duckdb", 7, 6, 3)]
    fresh = everything(glue.client(bucket.settings))
    assert not crawled(bucket, anew=True).changes
    assert everything(glue.client(bucket.settings)) == fresh


def test_a_type_conflict_names_column_and_file_and_nothing_at_all_is_written(bucket: Bucket) -> None:
    crawled(bucket)
    before = everything(glue.client(bucket.settings))
    bucket.put(bucket.key("BTC-USD", DAY, 8), rows() | {"price": pa.array(["1.5", "2.25"])})
    bucket.put(bucket.key("BTC-USD", DAY, 9), rows(fine=pa.array([1, 2])))
    odd = bucket.key("BTC-USD", DAY, 8)
    with pytest.raises(CrawlError, match=rf"column price is string in {odd}, but decimal\(38,18\) in "):
        crawled(bucket)
    assert everything(glue.client(bucket.settings)) == before
    bucket.delete(odd)
    crawled(bucket)
    assert ("BTC-USD", DAY, "09") in said(bucket)[1]


@pytest.mark.parametrize(
    ("name", "body", "sentence"),
    [
        ("notes.txt", b"hello, this is no Parquet", r"notes.txt \(25 bytes\) is no Parquet file"),
        ("empty.parquet", b"", r"empty.parquet \(0 bytes\) is no Parquet file"),
        ("cut.parquet", b"PAR1" + b"\0" * 8 + b"\xff\xff\xff\x00PAR1", "cut.parquet is cut off"),
        ("odd.parquet", b"PAR1" + b"\1" * 64 + b"\x20\x00\x00\x00PAR1", "odd.parquet: its footer cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_written(
    bucket: Bucket, name: str, body: bytes, sentence: str
) -> None:
    bucket.put_bytes(bucket.key("BTC-USD", DAY, 5, name), body)
    with pytest.raises(CrawlError, match=sentence):
        crawled(bucket)
    assert everything(glue.client(bucket.settings)) == {}
    assert glue.client(bucket.settings).get_databases()["DatabaseList"] == []


def test_a_type_without_a_place_in_the_catalog_and_names_that_differ_by_case_are_refused(bucket: Bucket) -> None:
    bucket.put(bucket.key("BTC-USD", DAY, 5), {"levels": pa.array([[1], [2]])})
    with pytest.raises(CrawlError, match=r"hour=05/part-0.parquet: column levels is list<"):
        crawled(bucket)
    bucket.put(bucket.key("BTC-USD", DAY, 5), {"Price": PRICES, "price": PRICES})
    with pytest.raises(CrawlError, match="two of its columns have one name"):
        crawled(bucket)


def test_more_files_than_one_page_of_a_listing_tells_are_all_found(bucket: Bucket) -> None:
    # a folder that sorts before those of one digit, names that sort around its own slash, characters that are escaped
    names = ["a b", "a+b", "a=b", "a", "a-b", "a.b", "aé", *(f"part-{number}" for number in range(2_100))]
    body = parquet(rows())
    with ThreadPoolExecutor(8) as pool:
        keys = [bucket.key(product, DAY, 5, f"{name}.parquet") for product in ("BTC-USD", "BTC") for name in names]
        list(pool.map(lambda key: bucket.put_bytes(key, body), keys))
    report = crawled(bucket)
    there = {key for key in bucket.keys(bucket.prefix) if key.endswith(".parquet")}
    assert there == {*keys, *(bucket.key(product, DAY, hour) for product, hour in FIRST)}
    table, _ = said(bucket)
    assert (table["Parameters"][FILES], report.partitions) == (str(len(there)), 4)
    listed = [one.key for one in every_object(bucket.client, bucket.settings.lake_bucket, bucket.prefix)]
    assert sorted(listed) == sorted(there)
    # and by the lines that `marketflow connect` prints for PyArrow, up to where they read the files
    block = connect.lines(bucket.settings, show_passwords=True).partition("Plain exports")[2].partition("\n\n")[0]
    known: dict[str, Any] = {}
    exec(textwrap.dedent(block.partition("\n")[2].partition("  features.to_table()")[0]), known)
    assert len(known["features"].files) == len(there)


def test_markers_and_hidden_files_are_no_data(bucket: Bucket) -> None:
    for name in ("_exported.json", "product_id=BTC-USD/_SUCCESS", ".hidden/x.parquet"):
        bucket.put_bytes(f"{bucket.prefix}{name}", b"{}")
    assert crawled(bucket).partitions == 3


def test_a_crawl_that_was_cut_off_in_the_middle_is_finished_by_the_next(bucket: Bucket) -> None:
    for hour in range(24):
        for product in ("A-USD", "B-USD", "C-USD", "D-USD", "E-USD"):
            bucket.put(bucket.key(product, DAY, hour), rows())
    client = glue.client(bucket.settings)
    batches = []

    def fail_on_the_second(**_: object) -> None:
        batches.append(1)
        if len(batches) == 2:
            raise CrawlError("planted")

    client.meta.events.register("before-parameter-build.glue.BatchCreatePartition", fail_on_the_second)
    with pytest.raises(CrawlError, match="planted"):
        crawl(bucket.settings, bucket.client, client)
    assert len(said(bucket)[1]) == 100
    crawled(bucket)
    finished = everything(glue.client(bucket.settings))
    assert len(said(bucket)[1]) == 123
    glue.client(bucket.settings).delete_database(Name="replay_export")
    crawled(bucket)
    assert everything(glue.client(bucket.settings)) == finished


def test_an_export_without_a_file_is_no_table(bucket: Bucket) -> None:
    crawled(bucket)
    bucket.empty()
    assert crawled(bucket).changes == ("replay_export.features: gone",)
    assert everything(glue.client(bucket.settings)) == {}


def test_other_peoples_tables_and_databases_stay(bucket: Bucket) -> None:
    client = glue.client(bucket.settings)
    for database in ("replay_export", "elsewhere"):
        client.create_database(DatabaseInput={"Name": database})
        client.create_table(DatabaseName=database, TableInput={"Name": "theirs"})
    crawled(bucket)
    bucket.empty()
    crawled(bucket)
    found = {
        (database, one["Name"])
        for database in ("replay_export", "elsewhere")
        for one in client.get_tables(DatabaseName=database)["TableList"]
    }
    assert found == {("replay_export", "theirs"), ("elsewhere", "theirs")}


def test_a_proof_names_a_table_whose_file_vanished_or_whose_partitions_somebody_took(bucket: Bucket) -> None:
    crawled(bucket)
    bucket.put(bucket.key("BTC-USD", DAY, 6), {name: column.slice(1) for name, column in rows().items()})
    with pytest.raises(CrawlError, match=r"replay_export.features: 5 rows are read where the catalog counts 6"):
        proven(bucket)
    bucket.delete(bucket.key("BTC-USD", DAY, 6))
    with pytest.raises(CrawlError, match=r"1 of 1 tables do not read: replay_export.features: .*hour=06"):
        proven(bucket)
    crawled(bucket)
    glue.client(bucket.settings).delete_partition(
        DatabaseName="replay_export", TableName="features", PartitionValues=["BTC-USD", DAY, "05"]
    )
    # the listing is the same, so a crawl believes what it remembers; the proof does not, and --anew mends it
    assert not crawled(bucket).changes
    with pytest.raises(CrawlError, match=r"has 1 partitions where the last crawl left 2.*`marketflow crawl --anew`"):
        proven(bucket)
    crawled(bucket, anew=True)
    assert proven(bucket) == [Proof("replay_export.features", "duckdb", 6, 4, 2)]


def test_a_proof_names_a_column_that_reads_as_another_type(bucket: Bucket) -> None:
    crawled(bucket)
    client = glue.client(bucket.settings)
    table = client.get_table(DatabaseName="replay_export", Name="features")["Table"]
    kept = {name: table[name] for name in ("Name", "TableType", "Parameters", "PartitionKeys", "StorageDescriptor")}
    kept["StorageDescriptor"]["Columns"][0]["Type"] = "string"
    client.update_table(DatabaseName="replay_export", TableInput=kept)
    with pytest.raises(CrawlError, match="column trade_id reads as BIGINT, the catalog says trade_id VARCHAR"):
        proven(bucket)


def test_two_crawls_at_once_are_one(bucket: Bucket) -> None:
    with table_lock(bucket.settings, "the catalog"), pytest.raises(BusyError):
        crawled(bucket)


def test_a_glue_that_forgot_is_told_again_and_one_that_is_down_is_named(bucket: Bucket) -> None:
    with glue_server(bucket.settings) as first:
        crawl(first, bucket.client, glue.client(first))
        told = everything(glue.client(first))
    with pytest.raises(CrawlError, match=rf"http://127.0.0.1:{first.glue_port} did not do what .*marketflow status"):
        crawl(first, bucket.client, glue.client(first))
    with glue_server(bucket.settings) as second:
        crawl(second, bucket.client, glue.client(second))
        assert everything(glue.client(second)) == told
