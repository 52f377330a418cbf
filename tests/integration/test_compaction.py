"""Compaction: what it would change is never committed, and what it commits is as large and as sorted as it should be.

The oracle is plain: rows as PyIceberg and PyArrow read them from the data files, compared as Python values.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import fresh_tables
import pyarrow.parquet as pq
import pytest
from gold_lake import trade
from pyspark.sql import SparkSession
from silver_lake import NOON, Bronze, Trade, match

from marketflow.contracts import bronze as bronze_contracts
from marketflow.contracts.silver import TRADES
from marketflow.errors import LakeStateError
from marketflow.lake import compaction, maintenance, readers, silver_snapshots
from marketflow.lake.compaction import Compacted, Sizes
from marketflow.lake.session import table_name
from marketflow.settings import Settings

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
LATER = NOON + 2 * DAY
RAW = bronze_contracts.BRONZE_TABLES[0]
rewrite = compaction.rewrite_on_branch


class Silver:
    """silver.trades with three files in each of two products' days; its rows as plain values."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self.spark, self.settings, self.name = spark, settings, table_name(settings, TRADES)
        for number in range(3):
            ids = range(number, 60, 3)
            self.append([trade(n, NOON + n * MINUTE, price=f"{100 + n}", sequence=n % 2 or None) for n in ids])
            self.append([trade(n, NOON + n * MINUTE, product_id="ETH-USD") for n in ids])

    def append(self, rows: list[dict[str, Any]]) -> None:
        values = [tuple(row[name] for name in TRADES.column_names) for row in rows]
        self.spark.createDataFrame(values, TRADES.spark_schema).coalesce(1).writeTo(self.name).append()

    def compact(self, *, deep: bool = True, **options: Any) -> Compacted:
        return compaction.compact(self.spark, self.name, TRADES, now=LATER, deep=deep, **options)

    @property
    def rows(self) -> Counter[tuple[Any, ...]]:
        stored = readers.load(self.settings, TRADES).to_pylist()
        return Counter(tuple(row.items()) for row in stored)

    @property
    def files(self) -> dict[str, int]:
        """Path within the bucket to size."""
        found = self.spark.table(f"{self.name}.files").select("file_path", "file_size_in_bytes").collect()
        return {row.file_path: row.file_size_in_bytes for row in found}

    @property
    def state(self) -> tuple[Any, ...]:
        """What readers get: the current snapshot, its files, and that no branch is left."""
        table = silver_snapshots.java_table(self.spark, self.name)
        return table.currentSnapshot().snapshotId(), self.files, [str(name) for name in table.refs().keySet()]


@pytest.fixture
def silver(embedded: Settings, lake: SparkSession) -> Silver:
    fresh_tables.empty(lake, embedded, (TRADES,))
    return Silver(lake, embedded)


PLANTED = {
    # written out: Spark's sum of two such numbers has a place less
    "a last digit": "update {} set price = cast('131.000000000000000001' as decimal(38, 18)) "
    "where trade_id = 31 and product_id = 'BTC-USD'",
    "a lost row": "delete from {} where trade_id = 31 and product_id = 'BTC-USD'",
    "a doubled row": "insert into {0} select * from {0} where trade_id = 31 and product_id = 'BTC-USD'",
    "one row in the place of another": "update {} set trade_id = 30 where trade_id = 31 and product_id = 'BTC-USD'",
    "a value beside its column": "update {} set offset = sequence, sequence = null where trade_id = 31 "
    "and product_id = 'BTC-USD'",
    "two prices exchanged": "update {} set price = case when trade_id = 30 then 131 else 130 end "
    "where trade_id in (30, 31) and product_id = 'BTC-USD'",
    "a row of another day": "update {} set event_ts = event_ts - interval 3 days "
    "where trade_id = 31 and product_id = 'BTC-USD'",
}


def test_what_would_change_a_row_is_not_committed_and_the_error_names_table_and_partition(
    silver: Silver, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rows = silver.state, silver.rows
    assert len(before[1]) == 6
    missed = {}
    for what, statement in PLANTED.items():

        def spoilt(*arguments: Any, statement: str = statement) -> None:
            rewrite(*arguments)
            silver.spark.sql(statement.format(f"{silver.name}.branch_{compaction.BRANCH}"))

        monkeypatch.setattr(compaction, "rewrite_on_branch", spoilt)
        try:
            silver.compact()
            missed[what] = "committed"
        except LakeStateError as error:
            if silver.name not in str(error) or "product_id=BTC-USD, event_ts_day=2026-03-10" not in str(error):
                missed[what] = str(error)
        assert silver.state == before, what
    assert missed == {}
    # what Dag maintain_lake's task prints and ends with
    done = maintenance.maintain_all(silver.spark, silver.settings, now=LATER, deep=True, tables=[TRADES])
    assert maintenance.exit_code(done) == 1
    assert "partition product_id=BTC-USD, event_ts_day=2026-03-10: 60 rows with checksum" in str(done[0])
    assert silver.state == before
    assert silver.rows == rows
    # and nothing of it is in the way of the next run
    monkeypatch.setattr(compaction, "rewrite_on_branch", rewrite)
    assert silver.compact().files_after == 2
    assert silver.rows == rows


def test_the_deep_run_leaves_one_sorted_file_a_closed_day_and_a_second_one_rewrites_nothing(silver: Silver) -> None:
    rows = silver.rows
    open_day = [trade(n, LATER + n * MINUTE) for n in (70, 71)]
    silver.append(open_day[:1])
    silver.append(open_day[1:])
    # three files are few: until the deep run they stay
    assert silver.compact(deep=False) == Compacted()
    done = silver.compact()
    assert (done.partitions, done.files_before, done.files_after, done.checksum.rows) == (2, 6, 2, 120)
    assert len(silver.files) == 4
    assert sum(silver.rows.values()) == 122
    assert silver.rows > rows
    for path in silver.files:
        ids = [row["trade_id"] for row in parquet(silver.settings, path)]
        assert ids == sorted(ids)
    state = silver.state
    assert silver.compact() == Compacted()
    assert silver.state == state


def parquet(settings: Settings, path: str) -> list[dict[str, Any]]:
    """Rows of one data file, in its order, from the disk under the S3 API."""
    (found,) = (settings.home / "s3").rglob(path.rsplit("/", 1)[1])
    return pq.ParquetFile(found).read().to_pylist()


def test_a_day_too_large_for_one_file_has_several_of_the_right_size_and_is_then_left_alone(silver: Silver) -> None:
    day = NOON + DAY
    # a group of rows is half a file at most, as 128 MB are of 256: what is not written yet counts uncompressed
    small = {"row-group-size-bytes": 16_384, "row-group-check-min-record-count": 100}
    for key, value in (small | {"row-group-check-max-record-count": 100}).items():
        silver.spark.sql(f"alter table {silver.name} set tblproperties ('write.parquet.{key}' = '{value}')")
    # ids that tell nothing of each other, so that compression finds little: some 40 bytes a trade
    for part in range(6):
        ids = [(n * 2_654_435_761) % 2**40 for n in range(part * 4000, part * 4000 + 4000)]
        silver.append([trade(n, day + timedelta(microseconds=n % 10**9), price=f"0.{n:018d}") for n in ids])
    rows = silver.rows
    one = max(silver.files.values())
    # three files of two of the six each
    sizes = Sizes(smallest=one * 5 // 4, target=one * 2, largest=one * 4)
    done = silver.compact(sizes=sizes)
    assert done.partitions == 3
    large = [size for path, size in silver.files.items() if "event_ts_day=2026-03-11" in path]
    assert len(large) > 1
    assert all(sizes.smallest <= size <= sizes.largest for size in large), large
    assert silver.rows == rows
    assert silver.compact(sizes=sizes) == Compacted()
    # a late row makes a small file of its own, and the day is written anew
    silver.append([trade(1, day)])
    assert silver.compact(sizes=sizes).partitions == 1
    assert silver.compact(sizes=sizes) == Compacted()
    # one file that is too large is split
    tight = Sizes(smallest=one // 4, target=one // 2, largest=one)
    assert silver.compact(sizes=tight).files_after > len(large)
    assert silver.compact(sizes=tight) == Compacted()


def test_a_column_that_came_after_the_rows_is_no_difference(silver: Silver) -> None:
    silver.spark.sql(f"alter table {silver.name} add column later string")
    rows = silver.rows
    assert silver.compact().files_after == 2
    assert silver.rows == rows


def test_what_a_killed_compaction_has_left_is_in_nobodys_way(silver: Silver, monkeypatch: pytest.MonkeyPatch) -> None:
    before = silver.state

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(compaction, "_judge", killed)
        during.setattr(compaction, "drop_branch", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            silver.compact()
    assert silver.state[:2] == before[:2]
    assert compaction.BRANCH in silver.state[2]
    assert silver.compact().files_after == 2
    assert silver.state[2] == ["main"]


def test_the_stream_may_append_meanwhile_and_an_increment_holds_its_rows_and_no_compacted_one(
    embedded: Settings, lake: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_tables.empty(lake, embedded, (RAW,))
    raw = Bronze(lake, embedded)
    for number in range(3):
        raw.commit({0: [match(Trade(number + 1))]}, NOON + number * MINUTE)
    name = table_name(embedded, RAW)
    seen = silver_snapshots.java_table(lake, name).currentSnapshot().snapshotId()

    def meanwhile(*arguments: Any) -> None:
        rewrite(*arguments)
        raw.commit({0: [match(Trade(4))]}, NOON + timedelta(hours=5))

    monkeypatch.setattr(compaction, "rewrite_on_branch", meanwhile)
    done = compaction.compact(lake, name, RAW, now=NOON + timedelta(hours=5), deep=True)
    assert (done.files_before, done.files_after, done.checksum.rows) == (3, 1, 3)
    assert [s.operation for s in silver_snapshots.walk(silver_snapshots.java_table(lake, name))] == [
        "replace",
        *["append"] * 4,
    ]
    lake.catalog.refreshTable(name)
    increment = lake.read.format("iceberg").option("start-snapshot-id", seen).load(name)
    assert [row.offset for row in increment.collect()] == [3]
    assert sorted(row["offset"] for row in readers.load(embedded, RAW).to_pylist()) == [0, 1, 2, 3]


def test_a_writer_who_ignored_the_lock_and_took_a_file_away_keeps_compaction_from_committing(
    silver: Silver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: Any) -> None:
        rewrite(*arguments)
        silver.spark.sql(f"delete from {silver.name} where trade_id = 31 and product_id = 'BTC-USD'")

    monkeypatch.setattr(compaction, "rewrite_on_branch", meanwhile)
    rows = silver.rows
    with pytest.raises(Exception, match="Missing required files to delete"):
        silver.compact()
    # the delete is there, and no row has come back
    assert sum((rows - silver.rows).values()) == 1
    assert sum(silver.rows.values()) == 119
    assert silver.state[2] == ["main"]


def test_only_partitions_of_the_wrong_files_are_asked_for() -> None:
    sizes = Sizes()
    mb = 1024**2

    def needs(files: list[int], *, commits: int = 9, deep: bool = True) -> bool:
        size = [each * mb for each in files]
        found = compaction.Partition((), "", len(files), sum(size), min(size), max(size), commits)
        return compaction._needs(found, sizes, deep=deep)

    assert not needs([1])
    assert not needs([512])
    assert needs([513])
    assert needs([1, 1])
    assert not needs([1, 1], deep=False)
    assert needs([1] * 5, deep=False)
    assert not needs([128, 512, 300])
    assert needs([256] * 9 + [1])
    # compaction's own work, whose sizes came out a little unequal
    assert not needs([120, 150], commits=1)
    assert needs([120, 150])
    assert needs([60] * 9, commits=1)
