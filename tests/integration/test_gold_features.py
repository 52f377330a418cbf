"""gold.trade_features as a pure function of silver: the whole tape's rows, whatever hour is written when."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from gold_lake import HOUR, append, at, complete, fresh, stored, trade
from polars.testing import assert_frame_equal
from pyspark.sql import SparkSession

from marketflow.contracts.gold import TRADE_FEATURES
from marketflow.contracts.silver import QUOTES, TRADES
from marketflow.features import frames
from marketflow.features.trades.kernel import trade_features
from marketflow.lake import compaction, gold, gold_accounts, gold_features, gold_write
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import java_table, walk
from marketflow.lake.snapshots import SnapshotSummary
from marketflow.settings import Settings
from marketflow.warehouse import gold_accounting
from marketflow.warehouse.connection import connect

Row = dict[str, Any]
NAME = TRADE_FEATURES.qualified


@pytest.fixture
def lake_now(embedded: Settings, lake: SparkSession) -> tuple[SparkSession, Settings]:
    """Empty silver and gold."""
    fresh(lake, embedded)
    return lake, embedded


def market(first_id: int, start: datetime, count: int, step_s: float, seed: int, **other: Any) -> list[Row]:
    """Trades about every `step_s`, ids in order."""
    chance, when, price, rows = random.Random(seed), start, 6_000_000, []
    for number in range(count):
        price += chance.randint(-50, 50)
        size = f"{chance.randint(1, 10**8)}e-8"
        side = chance.choice(("buy", "sell"))
        rows.append(trade(first_id + number, when, f"{price}e-2", size, taker_side=side, **other))
        when += timedelta(microseconds=int(chance.expovariate(1 / step_s) * 1e6) + 1)
    return rows


def quotes_of(trades: list[Row], every: int = 3) -> list[Row]:
    """A book, a millisecond after every third trade."""
    absent = dict.fromkeys(column.name for column in QUOTES.columns)
    made = []
    for row in trades[::every]:
        when = row["event_ts"] + timedelta(milliseconds=1)
        made.append(
            absent
            | {
                **{name: row[name] for name in ("venue", "product_id", "origin", "topic", "partition", "item_index")},
                "offset": row["offset"],
                "event_ts": when,
                "received_at": when,
                "best_bid": row["price"] - Decimal("0.01"),
                "best_bid_size": row["size"],
                "best_ask": row["price"] + Decimal("0.01"),
                "best_ask_size": Decimal(1),
            }
        )
    return made


def expected(trades: list[Row], quotes: list[Row]) -> pl.DataFrame:
    """The kernel on whole tapes."""
    schemas = {table: frames.schema(table) for table in (TRADES, QUOTES)}
    book = pl.DataFrame(quotes, schema=schemas[QUOTES])
    tapes = pl.DataFrame(trades, schema=schemas[TRADES]).partition_by("venue", "product_id")
    rows = [
        trade_features(tape, book).filter(pl.col("history") >= 500).drop("history", "quote_is_later") for tape in tapes
    ]
    return pl.concat(rows).sort(TRADE_FEATURES.key)


def assert_gold_is(spark: SparkSession, settings: Settings, trades: list[Row], quotes: list[Row]) -> pl.DataFrame:
    """Every row, and that each silver trade is accounted for."""
    there = pl.DataFrame(stored(spark, settings, TRADE_FEATURES), schema=frames.schema(TRADE_FEATURES))
    assert_frame_equal(there, expected(trades, quotes), rel_tol=1e-12, abs_tol=1e-12)
    with connect(settings) as connection:
        accounts = connection.execute(
            "select product_id, hour, trades, row_count, left_out from ops.gold_accounting"
        ).fetchall()
    hours = Counter((row["product_id"], row["event_ts"].replace(minute=0, second=0, microsecond=0)) for row in trades)
    assert {(product, hour): count for product, hour, count, _, _ in accounts} == dict(hours)
    assert all(count == rows + left_out for _, _, count, rows, left_out in accounts)
    assert sum(rows for _, _, _, rows, _ in accounts) == there.height
    return there


def test_hours_are_the_kernels_rows_and_stay_so_when_trades_and_quotes_come_late(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    busy = market(1_000, at("9T22:10"), 1_700, 6.0, seed=1)
    quiet = market(50, at("9T20:00"), 700, 25.0, seed=2, product_id="ETH-USD")
    late, now = busy[900:960], [*busy[:900], *busy[960:], *quiet]
    book = quotes_of(now)
    append(spark, settings, TRADES, now)
    append(spark, settings, QUOTES, book)
    complete(settings, TRADES, at("11T00:00"))
    complete(settings, QUOTES, at("11T00:00"))
    done = gold.rewrite_dirty(spark, settings, NAME)
    there = assert_gold_is(spark, settings, now, book)
    assert done.rows == there.height == 1_640 - 500 + 200
    assert there["gap_before"].sum() == 1
    assert there["best_bid"].null_count() < there.height
    assert gold.dirty_hours(spark, settings, NAME) == []

    # healed trades: the hole is gone, and so are the flags 500 trades on and the null targets 50 trades back
    append(spark, settings, TRADES, late)
    healed = gold.rewrite_dirty(spark, settings, NAME)
    assert len(healed.hours) < len(done.hours)
    there = assert_gold_is(spark, settings, [*now, *late], book)
    assert there["gap_before"].sum() == 0

    # late quotes
    more = quotes_of(busy[1_200:1_500], every=2)
    append(spark, settings, QUOTES, more)
    reached = gold.dirty_hours(spark, settings, NAME)
    assert 0 < len(reached) < 6
    gold.rewrite_dirty(spark, settings, NAME)
    assert_gold_is(spark, settings, [*now, *late], [*book, *more])

    # rows that waited for their horizon get it with the next trades
    assert not there.filter(pl.col("product_id") == "BTC-USD")["is_final"][-50:].any()
    following = market(2_700, busy[-1]["event_ts"] + timedelta(seconds=2), 300, 3.0, seed=3)
    append(spark, settings, TRADES, following)
    gold.rewrite_dirty(spark, settings, NAME)
    assert_gold_is(spark, settings, [*now, *late, *following], [*book, *more])


def test_a_backfilled_hour_is_the_same_hour_in_however_many_stretches_and_leaves_the_mark(
    lake_now: tuple[SparkSession, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    spark, settings = lake_now
    trades = market(1_000, at("10:05"), 1_500, 7.0, seed=4)
    append(spark, settings, TRADES, trades)
    append(spark, settings, QUOTES, quotes_of(trades))
    complete(settings, TRADES, at("23:00"))
    complete(settings, QUOTES, at("23:00"))
    gold.backfill_hours(spark, settings, NAME, [at("11:00")])
    one = {row["trade_id"]: row for row in stored(spark, settings, TRADE_FEATURES)}
    assert one
    assert {row["event_ts"].hour for row in one.values()} == {11}
    assert at("11:00") in gold.dirty_hours(spark, settings, NAME)
    gold.rewrite_dirty(spark, settings, NAME)
    whole = {row["trade_id"]: row for row in stored(spark, settings, TRADE_FEATURES)}
    assert {key: whole[key] for key in one} == one
    before = len(list(walk(java_table(spark, table_name(settings, TRADE_FEATURES)))))
    accounts = _accounts(settings)
    # a busy hour: several workers have a stretch of it each
    monkeypatch.setattr(gold_features, "_MOST_AT_ONCE", 120)
    gold.backfill_hours(spark, settings, NAME, [at("11:00"), at("12:00"), at("5:00") - 24 * HOUR])
    assert {row["trade_id"]: row for row in stored(spark, settings, TRADE_FEATURES)} == whole
    assert len(list(walk(java_table(spark, table_name(settings, TRADE_FEATURES))))) > before
    assert spark.table(f"{table_name(settings, TRADE_FEATURES)}.files").count() >= 2 * 514 // 120
    assert _accounts(settings) == accounts


def test_an_hour_of_a_compacted_day_is_written_again_and_the_days_other_hours_stay(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    name = table_name(settings, TRADE_FEATURES)
    trades = [
        *market(1_000, at("10:05"), 1_500, 7.0, seed=6),
        *market(50, at("10:05"), 1_000, 9.0, seed=7, product_id="ETH-USD"),
    ]
    late, now = trades[900:930], [*trades[:900], *trades[930:]]
    append(spark, settings, TRADES, now)
    append(spark, settings, QUOTES, quotes_of(now))
    complete(settings, TRADES, at("23:00"))
    complete(settings, QUOTES, at("23:00"))
    gold.rewrite_dirty(spark, settings, NAME)
    compaction.compact(spark, name, TRADE_FEATURES, now=at("12T12:00"), deep=True)
    assert spark.table(f"{name}.files").count() == 2, "a file holds all hours of a product's day"

    gold.backfill_hours(spark, settings, NAME, [at("11:00")])
    assert spark.table(f"{name}.files").count() > 2
    assert_gold_is(spark, settings, now, quotes_of(now))
    # trades that come late to such a day
    compaction.compact(spark, name, TRADE_FEATURES, now=at("12T12:00"), deep=True)
    append(spark, settings, TRADES, late)
    gold.rewrite_dirty(spark, settings, NAME)
    assert_gold_is(spark, settings, trades, quotes_of(now))


def _accounts(settings: Settings) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        return connection.execute(
            "select product_id, hour, trades, row_count, left_out, later_quotes from ops.gold_accounting order by 1, 2"
        ).fetchall()


def test_hours_without_500_trades_before_them_have_no_row_and_the_mark_moves(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    trades = [row | {"sequence": 10 * row["trade_id"]} for row in market(1, at("10:05"), 120, 7.0, seed=5)]
    append(spark, settings, TRADES, trades)
    # before all of them by sequence, and later than the first 50 by its time
    append(spark, settings, QUOTES, [quotes_of(trades[50:51])[0] | {"sequence": 1, "event_ts": trades[50]["event_ts"]}])
    complete(settings, TRADES, at("11:00"))
    complete(settings, QUOTES, at("11:00"))
    done = gold.rewrite_dirty(spark, settings, NAME)
    assert (done.rows, stored(spark, settings, TRADE_FEATURES)) == (0, [])
    assert gold.dirty_hours(spark, settings, NAME) == []
    with connect(settings) as connection:
        row = connection.execute("select trades, row_count, left_out, later_quotes from ops.gold_accounting").fetchone()
    assert row == (120, 0, 120, 50)


class CrashError(Exception):
    """A kill, as far as this process can tell."""


@pytest.fixture
def accounted(lake_now: tuple[SparkSession, Settings]) -> tuple[SparkSession, Settings]:
    """Trades of two products in silver, and a quote that by sequence is before 50 of them and bears a later time."""
    spark, settings = lake_now
    trades = [
        row | {"sequence": 10 * row["trade_id"]}
        for row in (
            *market(1_000, at("10:05"), 1_500, 6.5, seed=8),
            *market(50, at("10:05"), 700, 9.0, seed=9, product_id="ETH-USD"),
        )
    ]
    append(spark, settings, TRADES, trades)
    append(spark, settings, QUOTES, [quotes_of(trades[50:51])[0] | {"sequence": 1, "event_ts": trades[50]["event_ts"]}])
    complete(settings, TRADES, at("23:00"))
    complete(settings, QUOTES, at("23:00"))
    return spark, settings


def _counted(spark: SparkSession, settings: Settings) -> list[tuple[Any, ...]]:
    """What ops.gold_accounting should hold, told by silver alone."""
    trades, quotes = (table_name(settings, table) for table in (TRADES, QUOTES))
    # one quote at most is later than a trade, so the join repeats none
    rows = spark.sql(
        "with placed as (select product_id, event_ts, sequence, date_trunc('hour', event_ts) as hour, "
        f"row_number() over (partition by venue, product_id order by trade_id) as place from {trades}) "
        "select p.product_id, unix_seconds(p.hour), count(*), count_if(p.place > 500), count_if(p.place <= 500), "
        f"count(q.sequence) from placed p left join {quotes} q on q.product_id = p.product_id "
        "and q.sequence < p.sequence and q.event_ts > p.event_ts group by 1, 2 order by 1, 2"
    ).collect()
    return [(row[0], datetime.fromtimestamp(row[1], UTC), *row[2:]) for row in rows]


def _killed(monkeypatch: pytest.MonkeyPatch, where: Any, step: str, call: Callable[[], object]) -> None:
    def crashing(*_: Any, **__: Any) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr(where, step, crashing)
        with pytest.raises(CrashError):
            call()


def _snapshots(spark: SparkSession, settings: Settings) -> list[SnapshotSummary]:
    return list(walk(java_table(spark, table_name(settings, TRADE_FEATURES))))


def _written(settings: Settings) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        return connection.execute(
            "select product_id, hour, snapshot_id, written_at from ops.gold_accounting order by 1, 2"
        ).fetchall()


NEXT_RUNS = {
    "with nothing to do": lambda spark, settings: gold.rewrite_dirty(spark, settings, NAME),
    "of another hour": lambda spark, settings: gold.backfill_hours(spark, settings, NAME, [at("3:00")]),
    "of a closed hour": lambda spark, settings: gold.replace_hours(spark, settings, NAME, [at("3:00")], at("23:00")),
}


@pytest.mark.parametrize("step", ["_committed", "record"])
@pytest.mark.parametrize("following", NEXT_RUNS)
def test_a_run_killed_between_commit_and_account_is_accounted_for_by_the_next_run(
    accounted: tuple[SparkSession, Settings], monkeypatch: pytest.MonkeyPatch, step: str, following: str
) -> None:
    spark, settings = accounted
    where = gold if step == "_committed" else gold_accounting
    _killed(monkeypatch, where, step, lambda: gold.rewrite_dirty(spark, settings, NAME))
    # which looks the table up anew; a killed run would have left this session what it knew before
    commit = _snapshots(spark, settings)[0].snapshot_id
    # the rows are there and nothing is dirty: no run would write these hours again
    assert len(stored(spark, settings, TRADE_FEATURES)) == 1_500 - 500 + 700 - 500
    assert gold.dirty_hours(spark, settings, NAME) == []
    assert _accounts(settings) == []

    NEXT_RUNS[following](spark, settings)
    right = _counted(spark, settings)
    assert _accounts(settings) == right
    assert sum(later for *_, later in right) == 50
    assert {snapshot for _, _, snapshot, _ in _written(settings)} == {commit}


def test_the_newest_account_of_an_hour_stays_and_is_copied_once(
    accounted: tuple[SparkSession, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    spark, settings = accounted
    gold.rewrite_dirty(spark, settings, NAME)
    before = _counted(spark, settings)
    assert _accounts(settings) == before
    last = max(row["event_ts"] for row in stored(spark, settings, TRADES) if row["product_id"] == "BTC-USD")
    more = market(2_500, last + timedelta(seconds=1), 40, 3.0, seed=10)
    append(spark, settings, TRADES, [row | {"sequence": 10 * row["trade_id"]} for row in more])
    _killed(monkeypatch, gold, "_committed", lambda: gold.rewrite_dirty(spark, settings, NAME))
    right = _counted(spark, settings)
    assert _accounts(settings) == before != right
    # snapshots of maintenance carry no account
    compaction.compact(spark, table_name(settings, TRADE_FEATURES), TRADE_FEATURES, now=at("12T12:00"), deep=True)
    assert "accounting" not in _snapshots(spark, settings)[0].properties

    gold.rewrite_dirty(spark, settings, NAME)
    assert _accounts(settings) == right
    # of each commit the snapshot with the files alone has the account
    told = [one.snapshot_id for one in _snapshots(spark, settings) if "accounting" in one.properties]
    copied = _written(settings)
    assert len(told) == 2
    assert {snapshot for _, _, snapshot, _ in copied} == set(told)
    gold.rewrite_dirty(spark, settings, NAME)
    assert _written(settings) == copied


def test_hours_that_were_emptied_or_have_no_row_are_accounted_for_by_the_next_run(
    accounted: tuple[SparkSession, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    spark, settings = accounted
    gold.rewrite_dirty(spark, settings, NAME)
    trades = table_name(settings, TRADES)
    last, first = at("12:00"), at("10:00")
    spark.sql(f"delete from {trades} where event_ts >= timestamp'{last:%F %T}'")
    # killed after the delete and before the commit without rows
    _killed(monkeypatch, gold_write, "mark_only", lambda: gold.backfill_hours(spark, settings, NAME, [last]))
    assert {hour for _, hour, *_ in _accounts(settings)} == {first, first + HOUR, last}
    gold.backfill_hours(spark, settings, NAME, [at("3:00")])
    assert _accounts(settings) == _counted(spark, settings)

    # an hour whose trades have no 500 before them, of which nothing is added and nothing deleted
    append(spark, settings, TRADES, [trade(49, at("9:30"), product_id="ETH-USD", sequence=490)])
    _killed(monkeypatch, gold, "_committed", lambda: gold.backfill_hours(spark, settings, NAME, [at("9:00")]))
    assert ("ETH-USD", at("9:00")) not in [account[:2] for account in _accounts(settings)]
    gold.backfill_hours(spark, settings, NAME, [at("3:00")])
    assert ("ETH-USD", at("9:00"), 1, 0, 1, 0) in _accounts(settings)


def test_hours_that_are_too_many_for_a_summary_stay_dirty_until_they_are_accounted_for(
    accounted: tuple[SparkSession, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    spark, settings = accounted
    monkeypatch.setattr(gold_accounts, "MOST", 3)
    dirty = gold.dirty_hours(spark, settings, NAME)
    _killed(monkeypatch, gold_accounting, "record", lambda: gold.rewrite_dirty(spark, settings, NAME))
    assert len(stored(spark, settings, TRADE_FEATURES)) == 1_500 - 500 + 700 - 500
    assert all("accounting" not in one.properties for one in _snapshots(spark, settings))
    assert gold.dirty_hours(spark, settings, NAME) == dirty

    done = gold.rewrite_dirty(spark, settings, NAME)
    assert (list(done.hours), done.rows) == (dirty, 1_200)
    assert _accounts(settings) == _counted(spark, settings)
    assert gold.dirty_hours(spark, settings, NAME) == []
    # a backfill moves no mark, and its summary holds whatever was asked for
    _killed(monkeypatch, gold_accounting, "record", lambda: gold.backfill_hours(spark, settings, NAME, dirty))
    with connect(settings) as connection:
        connection.execute("update ops.gold_accounting set trades = trades + 1")
    gold.rewrite_dirty(spark, settings, NAME)
    assert _accounts(settings) == _counted(spark, settings)
