"""Rejected items can be looked at without Spark, and get a second chance after a parser's fix."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import silver_lake as lake_of
from pyspark.sql import SparkSession
from silver_lake import NOON, Bronze, Message, Trade, garbage, heartbeat, match, page

from marketflow.contracts import silver as contracts
from marketflow.errors import ConfigurationError, LakeStateError
from marketflow.lake import quarantine, silver, silver_redrive, silver_snapshots
from marketflow.lake.session import table_name
from marketflow.settings import Settings

SOURCE = silver.SOURCES["silver.trades"]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def bronze(embedded: Settings, lake: SparkSession) -> Bronze:
    lake_of.fresh(lake, embedded)
    return Bronze(lake, embedded)


def refused_by_an_older_parser(bronze: Bronze, records: list[lake_of.Record], index: int) -> None:
    """Put these messages into silver.rejected as if the parser of that day had not known them, and into no table.

    The bronze rows stay; the accounting of the commit says rejected, as it would have.
    """
    name = table_name(bronze.settings, contracts.REJECTED)
    rows = [
        (
            *(bronze.topic, record.partition, record.offset, index, "silver.trades", "coinbase_exchange", "matches"),
            *("unexpected_shape", "not known then", record.message.value, None, record.ingested_at),
        )
        for record in records
    ]
    frame = bronze.spark.createDataFrame(rows, contracts.REJECTED.spark_schema)
    frame.writeTo(name).append()
    trades = table_name(bronze.settings, contracts.TRADES)
    for record in records:
        item = "" if index == -1 else f" and item_index = {index}"
        bronze.spark.sql(
            f"delete from {trades} where partition = {record.partition} and offset = {record.offset}{item}"
        )


@pytest.fixture
def fixed(bronze: Bronze) -> Bronze:
    """Silver after a parser's fix: a whole message and one item of a page are refused that parse today."""
    bronze.commit(
        {
            0: [match(Trade(1)), match(Trade(2)), garbage(), match(Trade(1, price="3"))],
            1: [page([Trade(3), Trade(4)]), match(Trade(2)), heartbeat()],
        },
        NOON + MINUTE,
    )
    silver.advance(bronze.spark, bronze.settings, SOURCE)
    by_place = {(record.partition, record.offset): record for record in bronze.records}
    refused_by_an_older_parser(bronze, [by_place[0, 1]], -1)
    refused_by_an_older_parser(bronze, [by_place[1, 0]], 1)
    return bronze


def redrive(bronze: Bronze, **options: Any) -> quarantine.Redriven:
    (done,) = quarantine.redrive(bronze.spark, bronze.settings, table="silver.trades", **options)
    return done


def test_what_parses_now_moves_to_its_table_and_the_rest_stays(fixed: Bronze) -> None:
    done = redrive(fixed)
    assert (done.tried, done.inserted, done.still_rejected) == (4, 2, 2)
    expected = lake_of.truth(fixed.topic, fixed.records)
    assert lake_of.stored_trades(fixed.settings) == sorted(expected.trades.items())
    assert lake_of.stored_rejected(fixed.settings) == sorted(expected.rejected.items())


def test_a_redrive_is_in_the_books_and_keeps_the_watermark(fixed: Bronze) -> None:
    def mark() -> str:
        table = silver_snapshots.java_table(fixed.spark, table_name(fixed.settings, contracts.TRADES))
        return next(s.properties["watermark"] for s in silver_snapshots.walk(table) if "watermark" in s.properties)

    before, books = mark(), lake_of.accounted(fixed.settings)
    redrive(fixed)
    changed = {name: count - books[name] for name, count in lake_of.accounted(fixed.settings).items()}
    assert changed == {
        **{"messages": 0, "ignored": 0, "parsed": 1, "unparseable": -1, "items": 0},
        **{"accepted": 2, "duplicate": 0, "rejected": -2},
    }
    assert mark() == before
    assert silver.advance(fixed.spark, fixed.settings, SOURCE) == []


def test_a_second_redrive_changes_nothing(fixed: Bronze) -> None:
    redrive(fixed)
    books = lake_of.accounted(fixed.settings)
    done = redrive(fixed)
    assert (done.tried, done.inserted, done.still_rejected) == (2, 0, 2)
    assert lake_of.accounted(fixed.settings) == books


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["append_accepted", "_delete"])
def test_a_crash_in_a_redrive_and_a_rerun_give_the_tables_of_no_crash(
    fixed: Bronze, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    real: Callable[..., Any] = getattr(silver_redrive, step)

    def crashing(*arguments: Any, **options: Any) -> Any:
        if when == "after":
            real(*arguments, **options)
        raise RuntimeError("killed")

    books = lake_of.accounted(fixed.settings)
    with monkeypatch.context() as patch:
        patch.setattr(silver_redrive, step, crashing)
        with pytest.raises(RuntimeError, match="killed"):
            redrive(fixed)
    redrive(fixed)
    expected = lake_of.truth(fixed.topic, fixed.records)
    assert lake_of.stored_trades(fixed.settings) == sorted(expected.trades.items())
    assert lake_of.stored_rejected(fixed.settings) == sorted(expected.rejected.items())
    after = lake_of.accounted(fixed.settings)
    assert (after["accepted"] - books["accepted"], after["rejected"] - books["rejected"]) == (2, -2)


def test_a_refused_duplicate_and_a_message_that_is_no_data_leave_the_quarantine(bronze: Bronze) -> None:
    bronze.commit({0: [match(Trade(1)), match(Trade(1)), heartbeat()]}, NOON)
    silver.advance(bronze.spark, bronze.settings, SOURCE)
    refused_by_an_older_parser(bronze, bronze.records[1:], -1)
    done = redrive(bronze)
    assert (done.tried, done.inserted, done.duplicate, done.no_longer_data) == (2, 0, 1, 1)
    assert lake_of.stored_rejected(bronze.settings) == []
    assert len(lake_of.stored_trades(bronze.settings)) == 1


def test_a_message_that_parses_in_part_leaves_its_bad_items_in_quarantine(bronze: Bronze) -> None:
    bad = {"trade_id": 9, "side": "buy", "size": "0", "price": "5", "time": "2026-03-10T12:00:00Z"}
    (record,) = bronze.commit({0: [page([Trade(1), (bad, "not_positive"), Trade(2)])]}, NOON)
    silver.advance(bronze.spark, bronze.settings, SOURCE)
    bronze.spark.sql(f"delete from {table_name(bronze.settings, contracts.REJECTED)}")
    refused_by_an_older_parser(bronze, [record], -1)
    redrive(bronze)
    expected = lake_of.truth(bronze.topic, bronze.records)
    assert lake_of.stored_trades(bronze.settings) == sorted(expected.trades.items())
    assert lake_of.stored_rejected(bronze.settings) == sorted(expected.rejected.items())


def test_only_the_asked_reason_is_tried(fixed: Bronze) -> None:
    done = redrive(fixed, reason="malformed")
    assert (done.tried, done.still_rejected) == (1, 1)


def test_a_message_that_bronze_does_not_have_keeps_its_evidence(fixed: Bronze) -> None:
    lost = lake_of.Record(3, 77, NOON, Message(b"{}"))
    refused_by_an_older_parser(fixed, [lost], -1)
    with pytest.raises(LakeStateError, match="holds 4 of the 5 messages"):
        redrive(fixed)
    assert len(lake_of.stored_rejected(fixed.settings)) == 5


def test_show_lists_newest_first_with_reason_sentence_and_bytes(fixed: Bronze) -> None:
    fixed.commit({2: [Message(b"\xff\x00 no text", unparseable="malformed")]}, NOON + 9 * MINUTE)
    silver.advance(fixed.spark, fixed.settings, SOURCE)
    rows = quarantine.show(fixed.settings)
    assert len(rows) == 5
    newest = rows[0]
    assert (newest["partition"], newest["offset"], newest["item_index"]) == (2, 0, -1)
    assert (newest["reason"], newest["value"], newest["value_bytes"]) == ("malformed", "\\xff\x00 no text", 10)
    assert newest["rejected_at"] == NOON + 9 * MINUTE
    assert [row["reason"] for row in quarantine.show(fixed.settings, reason="conflicting_duplicate")] == [
        "conflicting_duplicate"
    ]
    assert len(quarantine.show(fixed.settings, limit=2)) == 2


def test_an_unknown_reason_is_refused_with_the_known_ones(bronze: Bronze) -> None:
    with pytest.raises(ConfigurationError, match="no reason 'typo'; known: malformed"):
        quarantine.show(bronze.settings, reason="typo")
