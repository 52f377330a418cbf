"""gold.bars as a pure function of silver.trades, judged by a slow plain-Python oracle over all trades."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from bars_oracle import Row, market, oracle
from gold_lake import HOUR, append, at, complete, fresh, stored, trade
from pyspark.sql import SparkSession

from marketflow.contracts.gold import BARS
from marketflow.contracts.silver import TRADES
from marketflow.errors import BusyError
from marketflow.lake import gold, gold_neighbours
from marketflow.lake.gold_marks import Mark, of_gold
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import java_table, walk
from marketflow.settings import Settings
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

BTC_FIRST, ETH_FIRST = 1000, 5000


@pytest.fixture
def lake_now(embedded: Settings, lake: SparkSession) -> tuple[SparkSession, Settings]:
    """Empty silver and gold."""
    fresh(lake, embedded)
    return lake, embedded


def mark(spark: SparkSession, settings: Settings) -> Mark:
    version = gold.RECIPES["gold.bars"].version
    return of_gold(walk(java_table(spark, table_name(settings, BARS))), version)


def newest_silver(spark: SparkSession, settings: Settings) -> int:
    return next(walk(java_table(spark, table_name(settings, TRADES)))).snapshot_id


def commits(spark: SparkSession, settings: Settings) -> int:
    return len(list(walk(java_table(spark, table_name(settings, BARS)))))


def test_bars_equal_the_oracle_through_every_kind_of_change(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    trades: list[Row] = []

    def arrive(rows: list[Row], through: datetime) -> None:
        trades.extend(rows)
        append(spark, settings, TRADES, rows)
        complete(settings, TRADES, through)

    def hours() -> list[int]:
        return [hour.hour for hour in gold.dirty_hours(spark, settings, BARS)]

    def rewrite(through: datetime) -> None:
        done = gold.rewrite_dirty(spark, settings, "gold.bars")
        assert stored(spark, settings, BARS) == oracle(trades, through)
        assert mark(spark, settings) == Mark(newest_silver(spark, settings), through)
        assert done.silver_snapshot == newest_silver(spark, settings)
        assert gold.dirty_hours(spark, settings, BARS) == []

    # the first run: everything there is, the open hour incomplete
    arrive(
        market(BTC_FIRST, at("7:10"), at("10:20"), step_s=40, seed=1)
        + market(ETH_FIRST, at("7:30"), at("9:05"), step_s=90, seed=2, product_id="ETH-USD"),
        at("10:20"),
    )
    assert hours() == [7, 8, 9, 10]
    rewrite(at("10:20"))

    # one more batch in the open hour reaches back to the last trades before that hour
    next_btc = trades[-1]["trade_id"] + 5000
    arrive(market(next_btc, at("10:21"), at("10:40"), step_s=30, seed=3), at("10:41"))
    assert hours() == [9, 10]
    rewrite(at("10:41"))

    # a late trade inside 08:00 changes its hour and, by holes and neighbours, the two beside it
    late = next(b for a, b in pairwise(trades) if b["trade_id"] == a["trade_id"] + 3 and b["event_ts"].hour == 8)
    arrive([trade(late["trade_id"] - 1, late["event_ts"] - timedelta(microseconds=5))], at("10:42"))
    assert hours() == [7, 8, 9, 10]  # 10 only because more of it is complete by now
    rewrite(at("10:42"))

    # a product silent since 09:05 trades again at 13:20: the empty hours between come into being
    arrive([trade(9000, at("13:20:10"), product_id="ETH-USD")], at("13:21"))
    assert hours() == [9, 10, 11, 12, 13]
    rewrite(at("13:21"))

    # three hours in which silver advanced and gold did not run
    for hour in (14, 15, 16):
        arrive(
            market(20_000 + hour * 1000, at(f"{hour}:01"), at(f"{hour}:59"), step_s=60, seed=hour), at(f"{hour + 1}:00")
        )
    assert hours() == [10, 11, 12, 13, 14, 15, 16]
    rewrite(at("17:00"))

    # nothing arrives, and time passes: no row changes
    complete(settings, TRADES, at("19:30"))
    assert hours() == [17, 18, 19]
    rewrite(at("19:30"))


def test_times_that_run_against_the_ids_at_an_hours_border_make_no_false_hole(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    trades = [
        trade(1, at("9:30")),
        trade(2, at("10:00:00.2")),  # a lower id in the later hour
        trade(3, at("9:59:59.9")),
        trade(4, at("10:00:00.1")),
        trade(8, at("9:59:59.95")),  # the hole 4 to 8 spans the border
        trade(9, at("10:30")),
    ]
    append(spark, settings, TRADES, trades)
    gold.replace_hours(spark, settings, BARS, [at("9:00")], at("9:30"))
    gold.replace_hours(spark, settings, BARS, [at("10:00")], at("9:30"))
    hourly = [row for row in oracle(trades, at("9:30")) if row["interval"] != "1d"]
    assert stored(spark, settings, BARS) == hourly  # before the first mark no other hour of the day need be there
    gold.rewrite_dirty(spark, settings, BARS)
    assert stored(spark, settings, BARS) == oracle(trades, None)


def test_a_product_of_two_venues_has_bars_of_each_and_no_hole_between_their_ids(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    exchange = [trade(100 + i, at("9:00") + timedelta(seconds=20 * i)) for i in range(30)]
    advanced = [
        trade(900 + i, at("9:30") + timedelta(seconds=20 * i), venue="coinbase_advanced", offset=900 + i)
        for i in range(30)
    ]
    append(spark, settings, TRADES, exchange)
    append(spark, settings, TRADES, advanced)
    complete(settings, TRADES, at("9:50"))
    gold.rewrite_dirty(spark, settings, BARS)
    minutes = [row for row in stored(spark, settings, BARS) if row["interval"] == "1m"]
    assert [(row["venue"], row["open_ts"], row["trade_count"], row["has_gap"]) for row in minutes] == [
        ("coinbase_advanced", at("9:30") + timedelta(minutes=i), 3, False) for i in range(10)
    ] + [("coinbase_exchange", at("9:00") + timedelta(minutes=i), 3, False) for i in range(10)]
    extents = gold_neighbours.extents(spark, table_name(settings, TRADES))
    assert extents[("coinbase_exchange", "BTC-USD")].last == exchange[-1]["event_ts"]
    assert extents[("coinbase_advanced", "BTC-USD")].first == advanced[0]["event_ts"]


def test_a_product_that_a_library_polled_has_bars_too_and_each_may_lack_a_trade(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    # the library's name of the exchange is longer than the bounds of a file's texts, and its ids are among the others'
    venue = "ccxt_coinbaseexchange"
    exchange = [trade(100 + i, at("9:00") + timedelta(seconds=20 * i)) for i in range(30)]
    polled = [
        trade(90 + 7 * i, at("9:05") + timedelta(seconds=20 * i), venue=venue, float_born=True, offset=900 + i)
        for i in range(30)
    ]
    append(spark, settings, TRADES, exchange + polled)
    complete(settings, TRADES, at("9:50"))
    gold.rewrite_dirty(spark, settings, BARS)
    minutes = [row for row in stored(spark, settings, BARS) if row["interval"] == "1m"]
    assert [(row["venue"], row["open_ts"], row["trade_count"], row["has_gap"]) for row in minutes] == [
        (venue, at("9:05") + timedelta(minutes=i), 3, True) for i in range(10)
    ] + [("coinbase_exchange", at("9:00") + timedelta(minutes=i), 3, False) for i in range(10)]


def test_an_hour_replaced_twice_is_the_same_hour_and_other_hours_stay(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    trades = market(1, at("7:10"), at("10:20"), step_s=40, seed=5)
    append(spark, settings, TRADES, trades)
    complete(settings, TRADES, at("11:00"))
    gold.rewrite_dirty(spark, settings, BARS)
    before, count = stored(spark, settings, BARS), commits(spark, settings)
    for _ in range(2):
        gold.backfill_hours(spark, settings, BARS, [at("8:00")])
    assert stored(spark, settings, BARS) == before
    assert commits(spark, settings) == count + 2


def test_a_backfill_does_not_move_the_mark(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    append(spark, settings, TRADES, market(1, at("7:10"), at("10:20"), step_s=40, seed=6))
    complete(settings, TRADES, at("10:30"))
    gold.rewrite_dirty(spark, settings, BARS)
    covered = mark(spark, settings)
    append(spark, settings, TRADES, market(2000, at("10:21"), at("11:50"), step_s=40, seed=7))
    complete(settings, TRADES, at("12:00"))
    dirty = gold.dirty_hours(spark, settings, BARS)
    gold.backfill_hours(spark, settings, BARS, [at("8:00"), at("11:00")])
    assert mark(spark, settings) == covered
    assert gold.dirty_hours(spark, settings, BARS) == dirty == [at("9:00"), at("10:00"), at("11:00")]
    with connect(settings) as connection:
        assert freshness.complete_through(connection, "gold.bars") == at("10:30")
    # asked for less than what is dirty, the mark stays too; asked for all of it, it moves
    gold.replace_hours(spark, settings, BARS, dirty[:1], at("12:00"))
    assert mark(spark, settings) == covered
    gold.replace_hours(spark, settings, BARS, dirty, at("12:00"))
    assert mark(spark, settings) == Mark(newest_silver(spark, settings), at("12:00"))


def test_one_hour_of_a_compacted_day_is_replaced_and_the_rest_of_the_day_stays(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    trades = market(1, at("9T22:00"), at("10T04:00"), step_s=60, seed=8)
    append(spark, settings, TRADES, trades)
    complete(settings, TRADES, at("11T00:00"))
    for hour in range(-2, 4):  # a file an hour and interval
        gold.backfill_hours(spark, settings, BARS, [at("10T00:00") + hour * HOUR])
    files = f"select count(*) as n from {table_name(settings, BARS)}.files"
    assert spark.sql(files).collect()[0].n == 24
    compact = f"table => '{table_name(settings, BARS)}', options => map('rewrite-all', 'true')"
    spark.sql(f"call lake.system.rewrite_data_files({compact})")
    assert spark.sql(files).collect()[0].n == 8
    inside = next(row for row in trades if row["event_ts"] > at("10T02:00"))
    trades.append(trade(9999, inside["event_ts"] + timedelta(milliseconds=1), price="77"))
    append(spark, settings, TRADES, trades[-1:])
    count = commits(spark, settings)
    gold.backfill_hours(spark, settings, BARS, [at("10T01:00"), at("10T02:00"), at("10T03:00")])
    hourly = [row for row in oracle(trades, at("11T00:00")) if row["interval"] != "1d"]
    assert stored(spark, settings, BARS) == hourly
    assert commits(spark, settings) == count + 1


def test_three_hours_dropped_from_gold_and_from_silver_come_back_identical(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    trades = market(1, at("6:00"), at("12:00"), step_s=50, seed=9)
    append(spark, settings, TRADES, trades)
    complete(settings, TRADES, at("13:00"))
    gold.rewrite_dirty(spark, settings, BARS)
    before = stored(spark, settings, BARS)
    dropped = [at("8:00"), at("9:00"), at("10:00")]
    between = "between timestamp'2026-03-10 08:00:00Z' and timestamp'2026-03-10 10:59:59.999999Z'"
    spark.sql(f"delete from {table_name(settings, BARS)} where open_ts {between}")
    assert len(stored(spark, settings, BARS)) == len(before) - 3 * 77
    gold.backfill_hours(spark, settings, BARS, dropped)
    assert stored(spark, settings, BARS) == before

    spark.sql(f"delete from {table_name(settings, TRADES)} where event_ts {between}")
    gold.rewrite_dirty(spark, settings, BARS)
    left = [row for row in trades if not at("8:00") <= row["event_ts"] < at("11:00")]
    assert stored(spark, settings, BARS) == oracle(left, at("13:00"))
    append(spark, settings, TRADES, [row for row in trades if row not in left])
    gold.rewrite_dirty(spark, settings, BARS)
    assert stored(spark, settings, BARS) == before


def test_hours_that_became_empty_lose_their_rows(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    trades = market(1, at("6:00"), at("9:00"), step_s=50, seed=10)
    append(spark, settings, TRADES, trades)
    complete(settings, TRADES, at("9:00"))
    gold.rewrite_dirty(spark, settings, BARS)
    spark.sql(f"delete from {table_name(settings, TRADES)} where event_ts >= timestamp'2026-03-10 07:00:00Z'")
    gold.rewrite_dirty(spark, settings, BARS)
    assert stored(spark, settings, BARS) == oracle([t for t in trades if t["event_ts"] < at("7:00")], at("9:00"))


def test_a_second_writer_is_told_to_come_back_later(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    with table_lock(settings, "gold.bars"), pytest.raises(BusyError):
        gold.rewrite_dirty(spark, settings, BARS)
