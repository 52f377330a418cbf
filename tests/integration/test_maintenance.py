"""Maintenance makes tables light, changes no row, and never takes what a writer or reader still needs."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import fresh_tables
import pytest
import silver_lake as lake_of
from pyspark.sql import SparkSession
from silver_lake import NOON, Bronze, Trade, garbage, match

from marketflow.contracts import gold
from marketflow.contracts import silver as contracts
from marketflow.errors import BusyError, LakeStateError
from marketflow.lake import expiry, maintenance, silver, silver_snapshots
from marketflow.lake.session import table_name
from marketflow.settings import PROMISED_OUTAGE_HOURS, Settings
from marketflow.stack import deep_runs
from marketflow.warehouse.locks import table_lock
from spark_jobs import maintain as maintain_job

SOURCE = silver.SOURCES["silver.trades"]
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture
def bronze(embedded: Settings, lake: SparkSession) -> Bronze:
    lake_of.fresh(lake, embedded)
    fresh_tables.empty(lake, embedded, gold.GOLD_TABLES)
    return Bronze(lake, embedded)


def files(bronze: Bronze, table: Any) -> int:
    return bronze.spark.table(f"{table_name(bronze.settings, table)}.files").count()


def snapshots(bronze: Bronze, table: Any) -> list[Any]:
    return list(silver_snapshots.walk(silver_snapshots.java_table(bronze.spark, table_name(bronze.settings, table))))


def maintain(bronze: Bronze, table: Any, now: datetime, **options: Any) -> maintenance.Maintained:
    return maintenance.maintain(bronze.spark, bronze.settings, table, now=now, **options)


def batch_arrives(bronze: Bronze, number: int) -> None:
    bronze.commit({0: [match(Trade(number + 1)), garbage()]}, NOON + number * MINUTE)


def commits(bronze: Bronze, count: int = 6) -> None:
    """As many batches, each of them a commit of bronze and of silver."""
    for number in range(count):
        batch_arrives(bronze, number)
        silver.advance(bronze.spark, bronze.settings, SOURCE)


def commits_of_bronze(bronze: Bronze) -> None:
    """Six batches that silver has not seen."""
    for number in range(6):
        batch_arrives(bronze, number)


def test_an_open_day_is_left_alone_and_a_closed_one_is_compacted_to_one_file_and_no_row_changes(
    bronze: Bronze,
) -> None:
    commits(bronze)
    expected = lake_of.truth(bronze.topic, bronze.records)
    assert maintain(bronze, contracts.TRADES, NOON + timedelta(hours=11)).compacted.files_before == 0
    assert files(bronze, contracts.TRADES) == 6
    done = maintain(bronze, contracts.TRADES, NOON + DAY)
    assert (done.rows, done.compacted.files_before, done.compacted.files_after) == (6, 6, 1)
    assert files(bronze, contracts.TRADES) == 1
    assert "1 partitions of 6 files compacted into 1 files, 6 rows with checksum" in str(done)
    maintain(bronze, contracts.REJECTED, NOON + DAY)
    lake_of.assert_silver_is(bronze.settings, expected)
    assert maintain(bronze, contracts.TRADES, NOON + DAY).compacted.files_before == 0


def test_a_bronze_hour_is_compacted_once_it_is_closed_for_two_hours(bronze: Bronze) -> None:
    commits_of_bronze(bronze)
    assert maintain(bronze, lake_of.TRADES, NOON + timedelta(hours=2, minutes=59)).compacted.files_before == 0
    done = maintain(bronze, lake_of.TRADES, NOON + timedelta(hours=3))
    assert (done.rows, done.compacted.files_before, done.compacted.files_after) == (12, 6, 1)


def test_the_watermark_survives_compaction_and_expiry(bronze: Bronze, monkeypatch: pytest.MonkeyPatch) -> None:
    commits(bronze)
    marked = snapshots(bronze, contracts.TRADES)[0].snapshot_id
    monkeypatch.setattr(expiry, "KEEP_SNAPSHOTS", 1)
    far = datetime.now(UTC) + 30 * DAY
    done = maintain(bronze, contracts.TRADES, far)
    assert (done.compacted.files_before, done.files_expired > 0) == (6, True)
    left = snapshots(bronze, contracts.TRADES)
    assert [snapshot.operation for snapshot in left] == ["replace", "append"]
    assert left[-1].snapshot_id == marked
    bronze.commit({0: [match(Trade(7))], 1: [match(Trade(3))]}, NOON + 9 * MINUTE)
    (commit,) = silver.advance(bronze.spark, bronze.settings, SOURCE)
    assert (commit.accounting.messages, commit.accounting.inserted) == (2, 1)
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_expiry_keeps_what_gold_has_yet_to_read(bronze: Bronze, monkeypatch: pytest.MonkeyPatch) -> None:
    commits(bronze)
    covered = snapshots(bronze, contracts.TRADES)[3].snapshot_id
    bars = table_name(bronze.settings, gold.BARS)
    empty = bronze.spark.createDataFrame([], gold.BARS.spark_schema)
    empty.writeTo(bars).option("snapshot-property.marketflow.silver_snapshot", str(covered)).append()
    monkeypatch.setattr(expiry, "KEEP_SNAPSHOTS", 1)
    maintain(bronze, contracts.TRADES, datetime.now(UTC) + 30 * DAY)
    appends = [s.snapshot_id for s in snapshots(bronze, contracts.TRADES) if s.operation == "append"]
    assert appends[-1] == covered
    assert len(appends) == 4


def test_snapshots_outlive_the_promised_outage_by_a_day_and_at_least_a_hundred_are_kept(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits_of_bronze(bronze)

    def appends(now: datetime) -> int:
        maintain(bronze, lake_of.TRADES, now)
        return len([s for s in snapshots(bronze, lake_of.TRADES) if s.operation == "append"])

    written = datetime.now(UTC)
    assert bronze.settings.snapshot_keep == timedelta(hours=PROMISED_OUTAGE_HOURS + 24)
    assert appends(written + 30 * DAY) == 6
    monkeypatch.setattr(expiry, "KEEP_SNAPSHOTS", 1)
    assert appends(written + timedelta(hours=23)) == 6
    assert appends(written + timedelta(hours=25)) == 0
    # whoever comes back after the promised outage, and takes a day for it, finds every one of silver and gold
    now = datetime.now(UTC)
    for table in (contracts.TRADES, gold.BARS):
        oldest = expiry.oldest_to_keep(bronze.spark, bronze.settings, table, now)
        assert now - oldest == timedelta(hours=PROMISED_OUTAGE_HOURS + 24)


def test_many_manifests_become_one_and_silver_goes_on_behind_that_commit(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(bronze)
    monkeypatch.setattr(maintenance, "_MOST_MANIFESTS", 5)
    # the day is open, so no file of it is compacted
    done = maintain(bronze, contracts.TRADES, NOON + 10 * MINUTE)
    assert (done.rows, done.compacted.files_before, done.manifests_rewritten) == (6, 0, 6)
    assert bronze.spark.table(f"{table_name(bronze.settings, contracts.TRADES)}.manifests").count() == 1
    assert snapshots(bronze, contracts.TRADES)[0].operation == "replace"
    batch_arrives(bronze, 6)
    (commit,) = silver.advance(bronze.spark, bronze.settings, SOURCE)
    assert commit.accounting.inserted == 1
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_a_table_whose_writer_is_at_work_is_busy_and_stops_no_other(bronze: Bronze) -> None:
    commits(bronze, 1)
    tables = (contracts.TRADES, contracts.REJECTED)
    with table_lock(bronze.settings, "silver.trades"):
        done = maintenance.maintain_all(bronze.spark, bronze.settings, now=NOON + DAY, tables=tables)
    assert [type(each.error) for each in done] == [BusyError, type(None)]
    assert maintenance.exit_code(done) == 75
    assert maintenance.exit_code([*done, maintenance.Maintained("x", error=LakeStateError("rows"))]) == 1


def test_a_row_that_goes_missing_during_maintenance_is_an_error(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(bronze)
    name = table_name(bronze.settings, contracts.TRADES)

    def losing(*_: Any) -> int:
        bronze.spark.sql(f"delete from {name} where trade_id = 3")
        return 0

    monkeypatch.setattr(maintenance, "_rewrite_manifests", losing)
    with pytest.raises(LakeStateError, match="has 5 rows after maintenance and had 6 before"):
        maintain(bronze, contracts.TRADES, NOON + DAY)


def test_the_deep_run_removes_old_files_that_no_snapshot_knows_and_no_others(bronze: Bronze) -> None:
    commits(bronze, 2)
    stored = silver_snapshots.java_table(bronze.spark, table_name(bronze.settings, contracts.TRADES))
    for name in ("stray", "young"):
        output = stored.io().newOutputFile(f"{stored.location()}/data/{name}.parquet").create()
        output.write(1)
        output.close()
    # a commit that was never made, five days ago; the other one may be under way
    (stray,) = (bronze.settings.home / "s3").rglob("stray.parquet")
    five_days_ago = time.time() - 5 * 86_400
    # a listing of the S3 API has a thousand objects, and folders' names are escaped in it
    folder = stray.parent / "product_id=BTC-USD"
    folder.mkdir(exist_ok=True)
    strays = [stray, *(folder / f"stray-{number:04}.parquet" for number in range(2_100))]
    for file in strays:
        file.touch()
        os.utime(file, (five_days_ago, five_days_ago))
    done = maintain(bronze, contracts.TRADES, datetime.now(UTC), deep=True)
    assert done.orphans_removed == len(strays)
    assert [file for file in strays if file.exists()] == []
    assert len(list((bronze.settings.home / "s3").rglob("young.parquet"))) == 1
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_a_deep_run_of_every_table_is_remembered_and_one_of_some_tables_is_none(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits(bronze, 1)
    monkeypatch.setattr(maintain_job, "load", lambda: bronze.settings)
    # the job ends its session; these tests share theirs
    monkeypatch.setattr(bronze.spark, "stop", lambda: None)
    monkeypatch.setattr(maintain_job, "spark", lambda *_: bronze.spark)
    remembered = bronze.settings.home / "upkeep" / deep_runs.LAKE
    remembered.unlink(missing_ok=True)
    assert maintain_job.main(["--deep", "--table", "silver.trades"]) == 0
    assert not remembered.exists()
    began = datetime.now(UTC)
    assert maintain_job.main(["--deep"]) == 0
    assert began <= datetime.fromisoformat(remembered.read_text()) <= datetime.now(UTC)


def test_a_property_that_differs_from_the_houses_is_set_back(bronze: Bronze) -> None:
    commits(bronze, 1)
    name = table_name(bronze.settings, contracts.TRADES)
    bronze.spark.sql(f"alter table {name} set tblproperties ('write.metadata.previous-versions-max' = '100')")
    maintain(bronze, contracts.TRADES, NOON)
    stored = silver_snapshots.java_table(bronze.spark, name).properties()
    assert stored["write.metadata.previous-versions-max"] == "20"
