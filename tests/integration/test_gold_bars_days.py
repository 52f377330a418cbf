"""Bars of whole days: folded from their hours' bars, judged by the trades themselves, by the oracle and by verify."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from bars_oracle import Row, market, oracle
from gold_lake import HOUR, append, at, complete, fresh, stored, trade
from pyspark.sql import SparkSession
from pyspark.sql import functions as f

from marketflow import verify
from marketflow.contracts.gold import BARS
from marketflow.contracts.silver import TRADES
from marketflow.lake import gold, maintenance
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import java_table, walk
from marketflow.settings import Settings

DAY = 24 * HOUR


@pytest.fixture
def lake_now(embedded: Settings, lake: SparkSession) -> tuple[SparkSession, Settings]:
    """Empty silver and gold."""
    fresh(lake, embedded)
    return lake, embedded


def problems(settings: Settings) -> list[tuple[str, str, str]]:
    """What verify says of gold.bars: kind, product, and the first key."""
    report = verify.run(settings, at_rest=True, layers=("gold",), output=lambda line: None)
    return [
        (one.kind, one.product, next(iter(one.examples), "")) for one in report.problems if one.table == "gold.bars"
    ]


def three_days() -> list[Row]:
    """BTC-USD over two midnights, one within a hole, the other with ids against times; ETH-USD, silent for a day."""
    first = market(1000, at("9T21:00"), at("9T23:40"), step_s=120, seed=21)
    second = market(first[-1]["trade_id"] + 7, at("10T00:20"), at("10T23:59:30"), step_s=400, seed=22)
    last_id = second[-1]["trade_id"]
    second.append(trade(last_id + 1, at("11T00:00:00.2"), "101"))  # of the next day, with the lower id
    second.append(trade(last_id + 2, at("10T23:59:59.9"), "102"))
    third = market(last_id + 3, at("11T00:01"), at("11T02:20"), step_s=120, seed=23)
    silent = [
        trade(number, when, product_id="ETH-USD")
        for number, when in ((50, at("9T22:30")), (51, at("9T22:31")), (52, at("11T01:00")), (53, at("11T01:30")))
    ]
    return first + second + third + silent


def test_days_equal_the_oracle_over_midnights_holes_silences_late_trades_and_time(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    trades = three_days()
    late = next(b for a, b in pairwise(trades) if b["trade_id"] == a["trade_id"] + 3 and b["event_ts"].day == 10)

    def arrive(rows: list[Row], through: datetime) -> list[str]:
        append(spark, settings, TRADES, rows)
        complete(settings, TRADES, through)
        gold.rewrite_dirty(spark, settings, BARS)
        newest = next(walk(java_table(spark, table_name(settings, BARS))))
        return [day[:10] for day in newest.properties["days"].split('"')[1::2]]

    assert arrive(trades, at("11T02:20")) == ["2026-03-09", "2026-03-10", "2026-03-11"]
    assert stored(spark, settings, BARS) == oracle(trades, at("11T02:20"))
    days = {
        (row["product_id"], row["open_ts"].day): row for row in stored(spark, settings, BARS) if row["interval"] == "1d"
    }
    told = {key: (row["trade_count"] > 0, row["has_gap"], row["is_complete"]) for key, row in days.items()}
    assert told["BTC-USD", 9][1:] == (True, True)
    assert told["BTC-USD", 11][2] is False  # the open day is there, minutes behind its trades
    assert told["ETH-USD", 10] == (False, False, True)
    assert days["BTC-USD", 10]["close"] == 102

    # a trade that is late by a day: its day is folded again, from hours of which most are not
    trades.append(trade(late["trade_id"] - 1, late["event_ts"] - timedelta(microseconds=5), "500000"))
    assert arrive(trades[-1:], at("11T02:25")) == ["2026-03-10", "2026-03-11"]
    assert stored(spark, settings, BARS) == oracle(trades, at("11T02:25"))
    assert problems(settings) == []

    # an hour that is backfilled leaves its day alone where another one of it is dirty; both are judged by what they saw
    trades_before = len(trades)
    elsewhere = next(
        b
        for a, b in pairwise(three_days())
        if b["trade_id"] == a["trade_id"] + 3 and b["event_ts"] >= late["event_ts"] + 3 * HOUR
    )
    trades += [trade(late["trade_id"] - 2, late["event_ts"] - timedelta(microseconds=6), "600000")]
    trades += [trade(elsewhere["trade_id"] - 1, elsewhere["event_ts"] - timedelta(microseconds=6), "400000")]
    append(spark, settings, TRADES, trades[trades_before:])
    hour, other = (row["event_ts"].replace(minute=0, second=0, microsecond=0) for row in (late, elsewhere))
    assert (hour.date(), other.date()) == (at("10T00:00").date(), at("10T00:00").date())
    gold.backfill_hours(spark, settings, BARS, [hour])

    def highs() -> dict[str, int]:
        return {row["interval"]: row["high"] for row in stored(spark, settings, BARS) if (row["high"] or 0) >= 500_000}

    assert highs() == {"1m": 600_000, "5m": 600_000, "15m": 600_000, "1h": 600_000, "1d": 500_000}
    assert problems(settings) == []
    # and folds it where none is
    dirty = gold.dirty_hours(spark, settings, BARS)
    assert {hour, other} <= set(dirty)
    gold.backfill_hours(spark, settings, BARS, dirty)
    assert highs()["1d"] == 600_000
    assert problems(settings) == []
    gold.rewrite_dirty(spark, settings, BARS)
    assert stored(spark, settings, BARS) == oracle(trades, at("11T02:25"))

    # bars that are wrong while silver is as it was: nothing is dirty, and a backfill of the hour mends hour and day
    spark.sql(
        f"update {table_name(settings, BARS)} set high = 700000 where product_id = 'BTC-USD' and (interval = '1h' "
        f"and open_ts = timestamp'{hour}' or interval = '1d' and open_ts = timestamp'2026-03-10 00:00:00Z')"
    )
    assert highs() == {"1m": 600_000, "5m": 600_000, "15m": 600_000, "1h": 700_000, "1d": 700_000}
    assert gold.dirty_hours(spark, settings, BARS) == []
    gold.backfill_hours(spark, settings, BARS, [hour])
    assert stored(spark, settings, BARS) == oracle(trades, at("11T02:25"))

    # a day's bar that is wrong is named by verify, alone
    spark.sql(f"update {table_name(settings, BARS)} set close = close + 1 where interval = '1d' and volume > 90")
    (found,) = problems(settings)[:1]
    assert (found[0], found[1], " 1d " in found[2]) == ("differing", "BTC-USD", True)

    # maintenance merges files of hours; a day's bar stays beside them
    maintenance.maintain(spark, settings, BARS, now=at("12T00:00"))
    gold.replace_hours(
        spark, settings, BARS, [at("9T21:00") + number * HOUR for number in range(30)], at("11T02:25"), backfill=True
    )
    spark.sql(f"delete from {table_name(settings, TRADES)} where event_ts < timestamp'2026-03-10 00:00:00Z'")
    gold.rewrite_dirty(spark, settings, BARS)
    assert stored(spark, settings, BARS) == oracle(
        [t for t in trades if t["event_ts"] >= at("10T00:00")], at("11T02:25")
    )
    assert problems(settings) == []


def test_a_lake_of_the_version_before_days_is_written_anew_once_and_verify_says_so_until_then(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    trades = market(1, at("9T22:10"), at("10T01:20"), step_s=60, seed=31)
    append(spark, settings, TRADES, trades)
    complete(settings, TRADES, at("10T01:30"))
    gold.rewrite_dirty(spark, settings, BARS)
    name = table_name(settings, BARS)
    # as that version left it: three intervals, no ids, a mark that names no version
    old = f.col("interval").isin("1m", "5m", "1h")
    ids = {column: f.lit(None).cast("bigint") for column in ("first_trade_id", "last_trade_id")}
    rows = spark.createDataFrame(spark.table(name).where(old).withColumns(ids).toArrow(), BARS.spark_schema)
    covered = next(walk(java_table(spark, table_name(settings, TRADES)))).snapshot_id
    writer = rows.coalesce(1).sortWithinPartitions("interval", "open_ts").writeTo(name)
    for key, value in (
        ("hours", "[]"),
        ("silver_snapshot", str(covered)),
        ("complete_through", at("10T01:30").isoformat()),
    ):
        writer = writer.option(f"snapshot-property.marketflow.{key}", value)
    writer.overwrite(f.lit(True))

    assert [problem[0] for problem in problems(settings)] == ["older version"]
    every = [at("9T22:00"), at("9T23:00"), at("10T00:00"), at("10T01:00")]
    assert gold.dirty_hours(spark, settings, BARS) == every
    gold.backfill_hours(
        spark, settings, BARS, [at("10T00:00")]
    )  # neither hides that nor writes a day of half its hours
    assert not [row for row in stored(spark, settings, BARS) if row["interval"] == "1d"]
    assert gold.dirty_hours(spark, settings, BARS) == every
    assert [problem[0] for problem in problems(settings)] == ["older version"]

    gold.rewrite_dirty(spark, settings, BARS)
    assert stored(spark, settings, BARS) == oracle(trades, at("10T01:30"))
    assert problems(settings) == []
    assert gold.dirty_hours(spark, settings, BARS) == []
