"""An hour is closed: what silver lacks of bronze is inserted, nothing else changes, and the watermark stays."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
import silver_lake as lake_of
from pyspark.sql import SparkSession
from silver_lake import NOON, Bronze, Trade, garbage, heartbeat, match, page

from marketflow.contracts import silver as contracts
from marketflow.errors import ConfigurationError, LakeStateError
from marketflow.lake import silver, silver_snapshots
from marketflow.lake.session import table_name
from marketflow.lake.tables import apply_contracts
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import Settings

SOURCE = silver.SOURCES["silver.trades"]
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def bronze(embedded: Settings, lake: SparkSession) -> Bronze:
    lake_of.fresh(lake, embedded)
    return Bronze(lake, embedded)


@pytest.fixture
def three_hours(bronze: Bronze) -> Bronze:
    """Three hours of arrivals, four partitions, a trade that arrives again an hour later, rejects in each."""
    for number in range(3):
        first = 10 * number + 1
        trades = [match(Trade(first + n, event_at=NOON + number * HOUR)) for n in range(4)]
        late = page([Trade(first + 4, event_at=NOON + number * HOUR), Trade(1)])
        bronze.commit(
            {
                0: [*trades[:2], garbage(), heartbeat()],
                1: trades[2:],
                2: [late],
                3: [match(Trade(1, price=str(number + 7)))],
            },
            NOON + number * HOUR + 5 * MINUTE,
        )
    return bronze


def advance(bronze: Bronze, **options: Any) -> list[silver.SilverCommit]:
    return silver.advance(bronze.spark, bronze.settings, SOURCE, **options)


def close(bronze: Bronze, number: int, **options: Any) -> silver.ClosedHour:
    return silver.close_hour(bronze.spark, bronze.settings, SOURCE, NOON + number * HOUR, **options)


def newest(bronze: Bronze) -> Any:
    table = silver_snapshots.java_table(bronze.spark, table_name(bronze.settings, contracts.TRADES))
    return next(silver_snapshots.walk(table))


def recreate(bronze: Bronze, *tables: Any) -> None:
    for table in tables:
        bronze.spark.sql(f"drop table {table_name(bronze.settings, table)} purge")
    apply_contracts(bronze.spark, bronze.settings)


def test_an_hour_that_reconciles_is_not_parsed_again(three_hours: Bronze) -> None:
    advance(three_hours, max_messages=5)
    before = newest(three_hours).snapshot_id
    report = close(three_hours, 1)
    assert (report.messages, report.missing_before, report.parsed_again) == (8, 0, False)
    assert newest(three_hours).snapshot_id == before


def test_lost_rows_are_inserted_with_their_own_lineage_and_the_watermark_is_carried_on(three_hours: Bronze) -> None:
    advance(three_hours)
    expected = lake_of.stored_trades(three_hours.settings)
    mark = newest(three_hours).properties["watermark"]
    name = table_name(three_hours.settings, contracts.TRADES)
    three_hours.spark.sql(f"delete from {name} where trade_id in (11, 15, 21)")
    report = close(three_hours, 1)
    assert (report.parsed_again, report.missing_before, report.inserted) == (True, 2, 2)
    assert newest(three_hours).properties["watermark"] == mark
    assert json.loads(newest(three_hours).properties["touched"]) == {"BTC-USD": [(NOON + HOUR).isoformat()]}
    assert close(three_hours, 2).inserted == 1
    assert lake_of.stored_trades(three_hours.settings) == expected
    assert advance(three_hours) == []


def test_a_lost_rejected_row_comes_back(three_hours: Bronze) -> None:
    advance(three_hours)
    expected = lake_of.stored_rejected(three_hours.settings)
    name = table_name(three_hours.settings, contracts.REJECTED)
    three_hours.spark.sql(f"delete from {name} where reason = 'malformed'")
    report = close(three_hours, 0)
    assert (report.missing_before, report.inserted, report.inserted_rejected) == (1, 0, 1)
    close(three_hours, 1)
    close(three_hours, 2)
    assert lake_of.stored_rejected(three_hours.settings) == expected


def test_a_forced_hour_with_nothing_missing_commits_nothing(three_hours: Bronze) -> None:
    advance(three_hours)
    before = newest(three_hours).snapshot_id
    report = close(three_hours, 1, force=True)
    assert (report.parsed_again, report.items, report.missing_before) == (True, 8, 0)
    assert newest(three_hours).snapshot_id == before


def test_dropped_tables_backfilled_from_bronze_hold_identical_rows_and_advance_goes_on(three_hours: Bronze) -> None:
    advance(three_hours)
    lake_of.assert_silver_is(three_hours.settings, lake_of.truth(three_hours.topic, three_hours.records))
    recreate(three_hours, contracts.TRADES, contracts.REJECTED)
    reports = [close(three_hours, number, force=True) for number in range(3)]
    assert [report.inserted for report in reports] == [5, 5, 5]
    expected = lake_of.truth(three_hours.topic, three_hours.records)
    assert lake_of.stored_trades(three_hours.settings) == sorted(expected.trades.items())
    assert lake_of.stored_rejected(three_hours.settings) == sorted(expected.rejected.items())
    # a table of backfilled hours has no watermark: advance reads bronze from its first offset and finds them here
    assert "watermark" not in newest(three_hours).properties
    three_hours.commit({1: [match(Trade(40, event_at=NOON + 3 * HOUR))]}, NOON + 3 * HOUR)
    (commit,) = advance(three_hours)
    assert (commit.accounting.messages, commit.accounting.already_here, commit.accounting.inserted) == (25, 15, 1)
    expected = lake_of.truth(three_hours.topic, three_hours.records)
    assert lake_of.stored_trades(three_hours.settings) == sorted(expected.trades.items())
    assert lake_of.stored_rejected(three_hours.settings) == sorted(expected.rejected.items())


def test_deleted_hours_are_backfilled_into_a_table_that_keeps_its_watermark(three_hours: Bronze) -> None:
    advance(three_hours)
    expected = lake_of.stored_trades(three_hours.settings)
    name = table_name(three_hours.settings, contracts.TRADES)
    three_hours.spark.sql(f"delete from {name}")
    assert advance(three_hours) == []
    for number in range(3):
        close(three_hours, number, force=True)
    assert lake_of.stored_trades(three_hours.settings) == expected
    three_hours.commit({0: [match(Trade(50))]}, NOON + 4 * HOUR)
    assert advance(three_hours)[0].accounting.messages == 1


def test_closing_an_hour_before_advance_read_it_makes_no_doubles(three_hours: Bronze) -> None:
    advance(three_hours, until=NOON + HOUR)
    report = close(three_hours, 1)
    assert report.inserted == 5
    (commit,) = advance(three_hours)
    assert (commit.accounting.already_here, commit.accounting.inserted) == (5, 5)
    expected = lake_of.truth(three_hours.topic, three_hours.records)
    assert lake_of.stored_trades(three_hours.settings) == sorted(expected.trades.items())
    assert lake_of.stored_rejected(three_hours.settings) == sorted(expected.rejected.items())


def test_an_item_in_quarantine_is_not_inserted_behind_its_back(three_hours: Bronze) -> None:
    advance(three_hours)
    # as if an older parser had refused trade 12 of partition 0, offset 5
    name, rejected = (table_name(three_hours.settings, t) for t in (contracts.TRADES, contracts.REJECTED))
    three_hours.spark.sql(f"delete from {name} where trade_id = 12")
    three_hours.spark.sql(
        f"insert into {rejected} select topic, partition, 5, 0, source_table, venue, channel, 'wrong_type', detail, "
        f"value, received_at, rejected_at from {rejected} where partition = 0 and offset = 6"
    )
    assert close(three_hours, 1, force=True).inserted == 0


def test_an_hour_without_arrivals_is_closed_at_once(three_hours: Bronze) -> None:
    report = close(three_hours, 9)
    assert (report.messages, report.parsed_again) == (0, False)


def test_a_hole_in_the_hour_is_refused(bronze: Bronze) -> None:
    bronze.write([lake_of.Record(0, offset, NOON, match(Trade(offset + 1))) for offset in (0, 1, 3)])
    with pytest.raises(LakeStateError, match="some are missing"):
        close(bronze, 0)


def test_a_time_that_is_no_hour_is_refused(bronze: Bronze) -> None:
    with pytest.raises(ConfigurationError, match="is not the start of an hour"):
        silver.close_hour(bronze.spark, bronze.settings, SOURCE, NOON + MINUTE)


def test_the_job_closes_hours_and_says_so_in_its_last_line(three_hours: Bronze) -> None:
    settings = three_hours.settings
    ports = {
        f"MARKETFLOW_{name.upper()}": str(getattr(settings, name))
        for name in ("postgres_port", "kafka_port", "s3_port")
    }
    script = PROJECT_FOLDER / "spark_jobs" / "silver.py"
    hour = NOON.isoformat()
    done = subprocess.run(
        [sys.executable, str(script), "--close-hour", hour, "--table", "silver.trades", "--force"],
        env={"PATH": "/usr/bin:/bin", "MARKETFLOW_HOME": str(settings.home), **ports},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["table"], line["hour"], line["inserted"], line["status"]) == ("silver.trades", hour, 5, "ok")
