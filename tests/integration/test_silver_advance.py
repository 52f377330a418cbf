"""Bronze becomes silver once and exactly, whatever the batches, duplicates and crashes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import silver_lake as lake_of
from pyspark.sql import SparkSession
from silver_lake import NOON, Bronze, Trade, garbage, heartbeat, match, page

from marketflow.contracts import silver as contracts
from marketflow.contracts.silver import REJECTED
from marketflow.errors import BusyError, LakeStateError
from marketflow.lake import silver, silver_commit, silver_snapshots, watermark
from marketflow.lake.session import table_name
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

SOURCE = silver.SOURCES["silver.trades"]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def bronze(embedded: Settings, lake: SparkSession) -> Bronze:
    lake_of.fresh(lake, embedded)
    return Bronze(lake, embedded)


def advance(bronze: Bronze, **options: Any) -> list[silver.SilverCommit]:
    return silver.advance(bronze.spark, bronze.settings, SOURCE, **options)


def snapshots(bronze: Bronze) -> list[Any]:
    table = silver_snapshots.java_table(bronze.spark, table_name(bronze.settings, contracts.TRADES))
    return list(silver_snapshots.walk(table))


def mixed(bronze: Bronze) -> None:
    """Two products on all four partitions in three batches, with every kind of message and both kinds of duplicate."""
    eth = "ETH-USD"
    first_of_five = Trade(5, price="101")
    bronze.commit(
        {
            0: [match(Trade(1)), heartbeat(), match(Trade(2, "99.123456789012345678", "3")), garbage()],
            1: [match(Trade(71, product_id=eth)), match(Trade(72, "1", "2", "sell", product_id=eth))],
        },
        NOON + MINUTE,
    )
    bronze.commit(
        {
            # a reconnect: 2 again, then on; 1 again with another price
            0: [match(Trade(2, "99.123456789012345678", "3")), match(Trade(3)), match(Trade(1, price="7"))],
            # one bad item among good ones, a trade that the feed brings later, and one twice in a page
            2: [
                page(
                    [
                        Trade(4),
                        (
                            {"trade_id": 9, "side": "buy", "size": "-1", "price": "5", "time": "2026-03-10T12:00:00Z"},
                            "not_positive",
                        ),
                        first_of_five,
                        Trade(4),
                    ]
                )
            ],
        },
        NOON + 2 * MINUTE,
    )
    bronze.commit(
        {0: [match(first_of_five), match(Trade(6))], 3: [match(Trade(73, product_id=eth))], 1: [heartbeat()]},
        NOON + 3 * MINUTE,
    )


def test_every_message_and_item_of_two_products_and_four_partitions_is_accounted_for(bronze: Bronze) -> None:
    mixed(bronze)
    commits = advance(bronze)
    expected = lake_of.truth(bronze.topic, bronze.records)
    lake_of.assert_silver_is(bronze.settings, expected)
    assert len(commits) == 1
    assert expected.counts == {
        **{"messages": 14, "ignored": 2, "parsed": 11, "unparseable": 1, "items": 15},
        **{"accepted": 9, "duplicate": 3, "rejected": 3},
    }
    assert commits[0].accounting.ignored_by_name == {"heartbeat": 2}
    assert commits[0].touched == {"BTC-USD": [NOON], "ETH-USD": [NOON]}


# one cuts everywhere; three within partitions, between them, and with a rest
@pytest.mark.parametrize("most", [1, 3])
def test_the_size_of_the_batches_changes_nothing(bronze: Bronze, most: int) -> None:
    mixed(bronze)
    commits = advance(bronze, max_messages=most)
    assert [commit.accounting.messages for commit in commits][:-1] == [most] * (14 // most - (14 % most == 0))
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_the_watermark_is_the_next_offset_of_each_partition_in_the_rows_own_commit(bronze: Bronze) -> None:
    mixed(bronze)
    advance(bronze)
    newest = snapshots(bronze)[0]
    assert json.loads(newest.properties["watermark"]) == {bronze.topic: {"0": 9, "1": 3, "2": 1, "3": 1}}
    assert json.loads(newest.properties["accounting"])["accepted"] == 9
    assert json.loads(newest.properties["touched"]) == {
        "BTC-USD": ["2026-03-10T12:00:00+00:00"],
        "ETH-USD": ["2026-03-10T12:00:00+00:00"],
    }
    bronze_table = silver_snapshots.java_table(bronze.spark, table_name(bronze.settings, lake_of.TRADES))
    assert int(newest.properties["covers"]) == bronze_table.currentSnapshot().snapshotId()


def test_a_batch_of_nothing_new_commits_nothing_and_still_moves_complete_through(bronze: Bronze) -> None:
    mixed(bronze)
    bronze.complete_through(NOON + 4 * MINUTE)
    advance(bronze)
    bronze.complete_through(NOON + 9 * MINUTE)
    before = len(snapshots(bronze))
    assert advance(bronze) == []
    assert len(snapshots(bronze)) == before
    with connect(bronze.settings) as connection:
        row = connection.execute(
            "select complete_through, newest_event_at from ops.layer_freshness where table_name = 'silver.trades'"
        ).fetchone()
    assert row == (NOON + 9 * MINUTE, NOON)


def test_part_of_a_backlog_does_not_claim_to_be_complete(bronze: Bronze) -> None:
    mixed(bronze)
    bronze.complete_through(NOON + 4 * MINUTE)
    advance(bronze, until=NOON + 3 * MINUTE)
    with connect(bronze.settings) as connection:
        marks = connection.execute("select 1 from ops.layer_mark where table_name = 'silver.trades'").fetchall()
    assert marks == []
    assert lake_of.accounted(bronze.settings)["messages"] == 10
    advance(bronze)
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_messages_that_are_all_ignored_or_rejected_move_the_watermark_by_an_empty_commit(bronze: Bronze) -> None:
    bronze.commit({0: [heartbeat(), garbage(), heartbeat()]}, NOON + MINUTE)
    (commit,) = advance(bronze)
    assert commit.accounting.accepted == 0
    assert json.loads(snapshots(bronze)[0].properties["watermark"]) == {bronze.topic: {"0": 3}}
    assert advance(bronze) == []
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_a_duplicate_with_another_time_across_midnight_is_caught(bronze: Bronze) -> None:
    late = datetime(2026, 3, 10, 23, 59, 59, 999_000, tzinfo=UTC)
    bronze.commit({0: [match(Trade(1, event_at=late))]}, late + MINUTE)
    advance(bronze)
    # the same trade two ms later is of the next day's partition; the third agrees to the millisecond
    bronze.commit(
        {
            0: [match(Trade(1, event_at=late + timedelta(milliseconds=2)))],
            1: [match(Trade(1, event_at=late.replace(microsecond=999_321)))],
        },
        late + 2 * MINUTE,
    )
    advance(bronze)
    expected = lake_of.truth(bronze.topic, bronze.records)
    assert (expected.counts["rejected"], expected.counts["duplicate"]) == (1, 1)
    lake_of.assert_silver_is(bronze.settings, expected)


def test_a_conflicting_duplicate_is_kept_with_its_bytes_and_says_what_differs(bronze: Bronze) -> None:
    bronze.commit({0: [match(Trade(1))]}, NOON + MINUTE)
    advance(bronze)
    other = match(Trade(1, price="7", size="8"))
    bronze.commit({0: [other]}, NOON + 2 * MINUTE)
    advance(bronze)
    (row,) = lake_of.readers.load(bronze.settings, "silver.rejected").to_pylist()
    assert row["detail"] == f"price, size differ from the row that came first, of {bronze.topic}/0/0/0"
    assert (row["value"], row["source_table"], row["venue"], row["rejected_at"]) == (
        *(other.value, "silver.trades", "coinbase_exchange"),
        NOON + 2 * MINUTE,
    )


def test_a_replayed_batch_adds_no_rows(bronze: Bronze) -> None:
    mixed(bronze)
    advance(bronze)
    again = [record.message for record in bronze.records if record.partition == 0]
    bronze.commit({1: again}, NOON + 5 * MINUTE)
    (commit,) = advance(bronze)
    assert (commit.accounting.accepted, commit.accounting.duplicate) == (0, 6)
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


class CrashError(Exception):
    """A kill, as far as this process can tell."""


@pytest.mark.parametrize("step", ["insert_rejected", "append_accepted", "copy_accounting", "_mark_fresh"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_step_and_a_rerun_give_the_table_of_no_crash(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    bronze.commit({0: [match(Trade(1)), garbage()]}, NOON)
    advance(bronze)
    mixed_before = list(bronze.records)
    bronze.complete_through(NOON + MINUTE)
    bronze.commit({0: [match(Trade(2)), garbage(), match(Trade(1, price="3")), match(Trade(2))]}, NOON + MINUTE)
    real: Callable[..., Any] = getattr(silver, step)
    calls: list[int] = []

    def crashing(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        # the first copy_accounting is that of the run before
        if step == "copy_accounting" and len(calls) == 1:
            return real(*arguments, **options)
        if when == "after":
            real(*arguments, **options)
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(silver, step, crashing)
        with pytest.raises(CrashError):
            advance(bronze)
    assert len(bronze.records) == len(mixed_before) + 4
    advance(bronze)
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))
    with connect(bronze.settings) as connection:
        row = connection.execute(
            "select complete_through from ops.layer_mark where table_name = 'silver.trades'"
        ).fetchone()
    assert row == (NOON + MINUTE,)


def test_a_balance_that_does_not_hold_is_refused_before_anything_is_written(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed(bronze)
    from marketflow.lake import silver_batch

    real = silver_batch.after_verdicts
    monkeypatch.setattr(silver_batch, "after_verdicts", lambda *arguments: (real(*arguments) or [])[1:])
    with pytest.raises(LakeStateError, match="is not 15 items; nothing was committed"):
        advance(bronze)
    assert snapshots(bronze) == []
    assert lake_of.stored_rejected(bronze.settings) == []


def test_a_commit_of_fewer_rows_than_were_accepted_is_taken_back_with_its_watermark(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    bronze.commit({0: [match(Trade(1)), match(Trade(2))]}, NOON)
    advance(bronze)
    before = snapshots(bronze)
    bronze.commit({0: [match(Trade(3)), match(Trade(4))]}, NOON + MINUTE)
    from marketflow.lake import silver_batch

    # what the parser counted and what is written part ways behind every check that comes before the write
    real = silver_batch.silver_pack.items
    with monkeypatch.context() as patch:
        patch.setattr(silver_batch.silver_pack, "items", lambda *asked, **more: real(*asked, **more).limit(1))
        with pytest.raises(LakeStateError, match=r"1 rows were written where 2 were accepted; .* was taken back"):
            advance(bronze)
    assert snapshots(bronze) == before

    advance(bronze)
    assert [key[2] for key, _ in lake_of.stored_trades(bronze.settings)] == [1, 2, 3, 4]


def test_a_hole_in_bronzes_offsets_is_refused_by_partition_and_offsets(bronze: Bronze) -> None:
    bronze.commit({0: [match(Trade(1)), match(Trade(2))], 1: [heartbeat()]}, NOON)
    advance(bronze)
    third = [lake_of.Record(0, offset, NOON + MINUTE, match(Trade(offset))) for offset in (4, 5)]
    bronze.write(third)
    with pytest.raises(LakeStateError, match=r"sim.crypto.trades.raw, partition 0: offsets 2 to 3 are missing"):
        advance(bronze)
    assert len(lake_of.stored_trades(bronze.settings)) == 2


def test_a_hole_within_a_bronze_batch_is_refused(bronze: Bronze) -> None:
    bronze.write([lake_of.Record(0, offset, NOON, match(Trade(offset + 1))) for offset in (0, 1, 3)])
    with pytest.raises(LakeStateError, match="3 rows with offsets 0 to 3, 0 was next: some are missing"):
        advance(bronze)


def test_a_bronze_row_that_is_there_twice_is_refused(bronze: Bronze) -> None:
    bronze.write([lake_of.Record(0, offset, NOON, match(Trade(offset + 1))) for offset in (0, 1, 1)])
    with pytest.raises(LakeStateError, match="some are there twice"):
        advance(bronze)


def test_a_doubled_row_does_not_hide_a_hole(bronze: Bronze) -> None:
    # four rows with offsets 0 to 3 by count, but 1 is there twice and 2 is not
    bronze.write([lake_of.Record(0, offset, NOON, match(Trade(offset + 1))) for offset in (0, 1, 1, 3)])
    with pytest.raises(LakeStateError, match="partition 0: read offset 1 where 2 was next"):
        advance(bronze)
    assert lake_of.stored_trades(bronze.settings) == []


def test_rows_without_a_watermark_are_refused_and_never_start_at_zero(bronze: Bronze) -> None:
    bronze.commit({0: [match(Trade(1))]}, NOON)
    advance(bronze)
    name = table_name(bronze.settings, contracts.TRADES)
    rows = bronze.spark.table(name).collect()
    bronze.spark.sql(f"drop table {name} purge")
    apply_contracts(bronze.spark, bronze.settings)
    bronze.spark.createDataFrame(rows, contracts.TRADES.spark_schema).writeTo(name).append()
    with pytest.raises(LakeStateError, match=r"silver.trades holds 1 rows and no snapshot carries a watermark"):
        advance(bronze)


def test_an_expired_bronze_snapshot_only_costs_pruning(bronze: Bronze) -> None:
    mixed(bronze)
    advance(bronze, until=NOON + 3 * MINUTE)
    advance(bronze)
    bronze.commit({0: [match(Trade(7)), garbage()], 2: [match(Trade(2, price="4"))]}, NOON + 6 * MINUTE)
    name = table_name(bronze.settings, lake_of.TRADES)
    bronze.spark.sql(
        f"call lake.system.expire_snapshots(table => '{name}', older_than => timestamp '2100-01-01', retain_last => 1)"
    )
    (commit,) = advance(bronze)
    assert commit.accounting.messages == 3
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_compacted_bronze_gives_the_same_silver(bronze: Bronze) -> None:
    mixed(bronze)
    advance(bronze, max_messages=5, until=NOON + 2 * MINUTE)
    name = table_name(bronze.settings, lake_of.TRADES)
    bronze.spark.sql(f"call lake.system.rewrite_data_files(table => '{name}', options => map('rewrite-all', 'true'))")
    bronze.commit({0: [match(Trade(8))]}, NOON + 6 * MINUTE)
    advance(bronze)
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_a_clock_that_was_set_back_loses_nothing(bronze: Bronze) -> None:
    bronze.commit({0: [match(Trade(1)), match(Trade(2))]}, NOON)
    advance(bronze)
    earlier = NOON - timedelta(hours=9)
    bronze.commit({0: [match(Trade(3, event_at=earlier - MINUTE))]}, earlier)
    bronze.commit({0: [match(Trade(4))]}, NOON + MINUTE)
    name = table_name(bronze.settings, lake_of.TRADES)
    bronze.spark.sql(
        f"call lake.system.expire_snapshots(table => '{name}', older_than => timestamp '2100-01-01', retain_last => 1)"
    )
    advance(bronze, max_messages=1)
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_a_busy_table_is_left_alone(bronze: Bronze) -> None:
    mixed(bronze)
    with table_lock(bronze.settings, "silver.trades"), pytest.raises(BusyError):
        advance(bronze)
    with table_lock(bronze.settings, REJECTED.qualified), pytest.raises(BusyError):
        advance(bronze)
    assert snapshots(bronze) == []


def test_one_source_that_fails_stops_no_other(bronze: Bronze) -> None:
    mixed(bronze)
    holed = Bronze(bronze.spark, bronze.settings, lake_of.TICKER)
    holed.write([lake_of.Record(0, offset, NOON, heartbeat()) for offset in (0, 2)])
    outcomes = silver.advance_all(bronze.spark, bronze.settings)
    assert {name: type(outcome.error) for name, outcome in outcomes.items()} == {
        "silver.trades": type(None),
        "silver.quotes": LakeStateError,
        "silver.asset_prices": type(None),
        "silver.candles": type(None),
    }
    lake_of.assert_silver_is(bronze.settings, lake_of.truth(bronze.topic, bronze.records))


def test_touched_hours_become_a_range_when_there_are_many(bronze: Bronze) -> None:
    hours = [NOON - timedelta(hours=2 * n) for n in range(watermark.MOST_HOURS + 1)]
    bronze.commit({0: [match(Trade(n + 1, event_at=hour)) for n, hour in enumerate(reversed(hours))]}, NOON + MINUTE)
    (commit,) = advance(bronze)
    assert commit.touched["BTC-USD"] == sorted(hours)
    stored = json.loads(snapshots(bronze)[0].properties["touched"])
    assert stored == {"BTC-USD": [min(hours).isoformat(), NOON.isoformat()], "range": True}
    assert silver_commit.watermark.decode_touched(json.dumps(stored))["BTC-USD"] == [
        min(hours) + timedelta(hours=n) for n in range(2 * watermark.MOST_HOURS + 1)
    ]
