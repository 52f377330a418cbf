"""Candles go the way of every other fact: once each, by their key, accounted for, and nobody has to have any."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import gold_lake
import pytest
import silver_lake as lake_of
from pyspark.sql import SparkSession
from silver_lake import Bronze, Message

from marketflow.catalog.queries import run_saved
from marketflow.contracts import gold
from marketflow.contracts import silver as contracts
from marketflow.lake import gold as gold_tables
from marketflow.lake import maintenance, quarantine, readers, silver, silver_batch, silver_snapshots
from marketflow.lake.session import table_name
from marketflow.settings import Settings
from marketflow.simulator import binance_pages, coinbase_rest, minutes
from marketflow.simulator.truth import TruthTrade
from marketflow.warehouse.connection import connect
from tests.candle_pages import EXCHANGE_HEADERS, KLINES_HEADERS, NOON, NOON_S, PAGES

SOURCE = silver.SOURCES["silver.candles"]
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
LATER = NOON + 5 * MINUTE


@pytest.fixture
def bronze(embedded: Settings, lake: SparkSession) -> Bronze:
    lake_of.fresh(lake, embedded)
    return Bronze(lake, embedded, lake_of.CANDLES)


def advance(bronze: Bronze, **options: Any) -> list[silver.SilverCommit]:
    return silver.advance(bronze.spark, bronze.settings, SOURCE, **options)


def page(rows: Sequence[Sequence[float]], **changed: str) -> Message:
    """A page of Coinbase Exchange: rows of minutes after noon, close and volume."""
    values = [[NOON_S + 60 * minute, 10, 20, 15, close, volume] for minute, close, volume in rows]
    received = str(round((NOON + HOUR).timestamp() * 1e6))
    return Message(json.dumps(values).encode(), headers=EXCHANGE_HEADERS | {"received_at": received} | changed)


def stored(bronze: Bronze) -> list[tuple[Any, ...]]:
    """Key, close and volume, offset and index of every row, sorted; read without Spark."""
    names = ("venue", "product_id", "interval", "open_ts", "close", "volume", "offset", "item_index")
    rows = readers.load(bronze.settings, "silver.candles").to_pylist()
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_every_venues_candles_are_kept_once_and_the_books_balance(bronze: Bronze) -> None:
    messages = [Message(value, headers=headers) for headers, value in PAGES.values()]
    empty = Message(b"[]", headers=EXCHANGE_HEADERS)
    unnamed = Message(messages[0].value, headers={**EXCHANGE_HEADERS, "interval": "2m"})
    bronze.commit({0: [*messages, empty, unnamed]}, LATER)
    bronze.commit({0: messages}, LATER + MINUTE)
    bronze.complete_through(LATER + 2 * MINUTE)
    first, second = advance(bronze, max_messages=6)
    assert (first.accounting.accepted, first.accounting.duplicate, first.accounting.rejected) == (8, 0, 5)
    assert (second.accounting.accepted, second.accounting.duplicate, second.accounting.rejected) == (0, 8, 4)
    assert first.touched == {"BTC-USD": [NOON], "BTC-USDT": [NOON]}
    rows = readers.load(bronze.settings, "silver.candles").to_pylist()
    assert {(row["venue"], row["open_ts"]) for row in rows} == {
        (venue, NOON + number * MINUTE) for venue in PAGES for number in (0, 1)
    }
    (kline,) = (row for row in rows if row["venue"] == "binance" and row["open_ts"] == NOON)
    expected = {
        **{"product_id": "BTC-USDT", "interval": "1m", "origin": "backfill", "trade_count": 7, "item_index": 0},
        **{"open": Decimal("63551.01"), "high": Decimal("63551.02"), "low": Decimal("63551.01")},
        **{"close": Decimal("63551.02"), "volume": Decimal("0.5"), "notional": Decimal("31775.51")},
        **{"topic": "sim.crypto.candles.raw", "partition": 0, "received_at": NOON + timedelta(seconds=150)},
    }
    assert {name: kline[name] for name in expected} == expected
    assert lake_of.accounted(bronze.settings, "silver.candles") == {
        **{"messages": 10, "ignored": 1, "parsed": 8, "unparseable": 1},
        **{"items": 25, "accepted": 8, "duplicate": 8, "rejected": 9},
    }
    reasons = [reason for _, reason in lake_of.stored_rejected(bronze.settings)]
    assert sorted(reasons) == ["bad_headers"] + ["incomplete_candle"] * 8
    with connect(bronze.settings) as connection:
        mark = connection.execute(
            "select complete_through, newest_event_at from ops.layer_freshness where table_name = 'silver.candles'"
        ).fetchone()
    assert mark == (LATER + 2 * MINUTE, NOON + MINUTE)


def test_the_first_of_a_key_wins_and_another_content_is_refused(bronze: Bronze) -> None:
    bronze.commit({0: [page([(0, 12, 1), (1, 13, 1)]), page([(1, 13, 1), (2, 14, 1)])]}, LATER)
    (first,) = advance(bronze)
    hourly = page([(0, 12, 60)], interval="1h")
    bronze.commit(
        {0: [page([(0, 12, 2), (1, 13.5, 1), (2, 14, 1)]), hourly, page([(5, 11, 3), (5, 11, 3)])]}, NOON + HOUR
    )
    (second,) = advance(bronze)
    assert (first.accounting.accepted, first.accounting.duplicate) == (3, 1)
    assert (second.accounting.accepted, second.accounting.duplicate, second.accounting.rejected) == (2, 2, 2)
    venue, product = "coinbase_exchange", "BTC-USD"
    assert stored(bronze) == [
        (venue, product, "1h", NOON, 12, 60, 3, 0),
        (venue, product, "1m", NOON, 12, 1, 0, 0),
        (venue, product, "1m", NOON + MINUTE, 13, 1, 0, 1),
        (venue, product, "1m", NOON + 2 * MINUTE, 14, 1, 1, 1),
        (venue, product, "1m", NOON + 5 * MINUTE, 11, 3, 4, 0),
    ]
    refused = {lineage[2:]: reason for lineage, reason in lake_of.stored_rejected(bronze.settings)}
    assert refused == {(2, 0): "conflicting_duplicate", (2, 1): "conflicting_duplicate"}
    details = [row["detail"] for row in readers.load(bronze.settings, "silver.rejected").to_pylist()]
    assert sorted(detail.split(" differ")[0] for detail in details) == ["close", "volume"]


def test_a_large_batch_of_many_partitions_is_written_as_a_small_one_is(
    bronze: Bronze, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [
        page([(60 * hour + 5 * step, 12, hour) for step in range(12)], interval=interval, product_id=product, **late)
        for hour in range(6)
        for interval in ("5m", "1m")
        for product in ("ETH-USD", "BTC-USD", "SOL-USD")
        for late in [{"received_at": str(round((NOON + 9 * HOUR).timestamp() * 1e6))}]
    ]
    monkeypatch.setattr(silver_batch, "_ONE_TASK_ROWS", 1)
    for number in (0, 1):  # the second batch repeats some of the first, so some of its rows are looked up
        bronze.commit({0: pages[: 24 + 12 * number]}, NOON + (10 + number) * HOUR)
        advance(bronze)
    keys = [row[:4] for row in stored(bronze)]
    assert keys == sorted(
        ("coinbase_exchange", product, interval, NOON + hour * HOUR + 5 * step * MINUTE)
        for product in ("ETH-USD", "BTC-USD", "SOL-USD")
        for interval in ("1m", "5m")
        for hour in range(6)
        for step in range(12)
    )


def test_a_topic_that_never_had_a_message_makes_no_commit_and_holds_nothing_up(bronze: Bronze) -> None:
    for moment in (NOON, NOON + MINUTE):
        bronze.complete_through(moment)
        outcome = silver.advance_all(bronze.spark, bronze.settings)["silver.candles"]
        assert (outcome.error, outcome.commits) == (None, [])
        with connect(bronze.settings) as connection:
            mark = connection.execute(
                "select complete_through from ops.layer_freshness where table_name = 'silver.candles'"
            ).fetchone()
        assert mark == (moment,)
    table = silver_snapshots.java_table(bronze.spark, table_name(bronze.settings, contracts.CANDLES))
    assert table.currentSnapshot() is None
    closed = silver.close_hour(bronze.spark, bronze.settings, SOURCE, NOON)
    assert (closed.messages, closed.parsed_again) == (0, False)
    assert maintenance.maintain(bronze.spark, bronze.settings, contracts.CANDLES, now=NOON).error is None


def lose(bronze: Bronze, condition: str) -> None:
    bronze.spark.sql(f"delete from {table_name(bronze.settings, contracts.CANDLES)} where {condition}")


def test_closing_an_hour_brings_back_a_candle_that_was_lost(bronze: Bronze) -> None:
    bronze.commit({0: [page([(0, 12, 1), (1, 13, 1)]), page([(1, 13, 1), (2, 14, 1)])]}, LATER)
    advance(bronze)
    expected = stored(bronze)
    assert silver.close_hour(bronze.spark, bronze.settings, SOURCE, NOON).parsed_again is False
    lose(bronze, "item_index = 1 and offset = 0")
    assert len(stored(bronze)) == 2
    closed = silver.close_hour(bronze.spark, bronze.settings, SOURCE, NOON)
    assert (closed.parsed_again, closed.inserted) == (True, 1)
    # the message that repeated it is as good a witness
    assert [row[:6] for row in stored(bronze)] == [row[:6] for row in expected]


def test_a_refused_page_that_parses_today_is_redriven(bronze: Bronze) -> None:
    bronze.commit({0: [page([(0, 12, 1), (1, 13, 1)])]}, LATER)
    advance(bronze)
    expected = stored(bronze)
    lose(bronze, "true")
    (record,) = bronze.records
    row = (
        *(bronze.topic, 0, 0, -1, "silver.candles", "coinbase_exchange", "candles", "unexpected_shape"),
        *("not known then", record.message.value, None, record.ingested_at),
    )
    frame = bronze.spark.createDataFrame([row], contracts.REJECTED.spark_schema)
    frame.writeTo(table_name(bronze.settings, contracts.REJECTED)).append()
    (done,) = quarantine.redrive(bronze.spark, bronze.settings, table="silver.candles")
    assert (done.tried, done.inserted, done.still_rejected) == (1, 2, 0)
    assert stored(bronze) == expected
    assert lake_of.stored_rejected(bronze.settings) == []


def test_maintenance_makes_one_file_of_a_partition_whatever_its_days(bronze: Bronze) -> None:
    for number in range(6):
        received = str(round((NOON + 9 * HOUR).timestamp() * 1e6))
        pages = [page([(number, 12, 1)], interval="1m", received_at=received)]
        pages += [page([(60 * number, 12, 1)], interval="1h", received_at=received)]
        bronze.commit({0: pages}, NOON + (10 + number) * HOUR)
        advance(bronze)
    expected = stored(bronze)
    assert len(expected) == 12
    done = maintenance.maintain(bronze.spark, bronze.settings, contracts.CANDLES, now=NOON)
    assert (done.rows, done.compacted.files_before, done.compacted.files_after) == (12, 12, 2)
    assert stored(bronze) == expected
    bronze.commit({0: [page([(7, 12, 1)])]}, NOON + 17 * HOUR)
    (commit,) = advance(bronze)
    assert (commit.accounting.messages, commit.accounting.inserted) == (1, 1)


def test_the_saved_query_says_which_bars_a_venues_candles_confirm(bronze: Bronze) -> None:
    bronze.commit({0: [page([(minute, 12 + minute, 1) for minute in range(6)])]}, LATER)
    advance(bronze)
    good = dict.fromkeys(gold.BARS.column_names) | {
        **{"venue": "coinbase_exchange", "product_id": "BTC-USD", "interval": "1m", "open": 15, "high": 20, "low": 10},
        **{"volume": 1, "notional": 1, "trade_count": 3, "has_gap": False, "is_complete": True},
        **{"buy_volume": 1, "sell_volume": 0},
    }
    rows = [
        {"open_ts": NOON, "close": 12},
        {"open_ts": NOON + MINUTE, "close": 99},
        {"open_ts": NOON + 2 * MINUTE, "close": 14, "has_gap": True},
        {"open_ts": NOON + 3 * MINUTE, "close": 15, "is_complete": False},
        {"open_ts": NOON + 4 * MINUTE, "close": 16, "venue": "binance"},
        {"open_ts": NOON + 5 * MINUTE, "close": None},
    ]
    frame = bars(bronze, [good | row for row in rows])
    frame.writeTo(table_name(bronze.settings, gold.BARS)).append()
    found = run_saved(bronze.settings, "candles", {"product": "BTC-USD", "bar": "1m", "rows": "10"})
    verdicts = {row[1]: row[2] for row in found.rows}
    assert list(verdicts.values()) == ["differs", "no bar", "bar is open", "bar has a gap", "differs", "same"]
    assert min(verdicts) == NOON


def bars(bronze: Bronze, rows: list[dict[str, Any]]) -> Any:
    exact = [
        {name: Decimal(value) if type(value) is int and name != "trade_count" else value for name, value in row.items()}
        for row in rows
    ]
    ordered = [tuple(row[name] for name in gold.BARS.column_names) for row in exact]
    return bronze.spark.createDataFrame(ordered, gold.BARS.spark_schema)


def traded(venue: str, product: str) -> list[dict[str, Any]]:
    """Two days and two hours of trades every seven minutes, some prices new extremes; ids without a hole."""
    begin = NOON.replace(hour=0) + 3 * MINUTE
    return [
        gold_lake.trade(
            900 + number,
            begin + number * 7 * MINUTE,
            f"{60_000 + (number * 7_919) % 1_000}.25",
            f"0.{number + 1:05d}",
            **{"venue": venue, "product_id": product, "taker_side": "sell" if number % 3 else "buy"},
        )
        for number in range(428)
    ]


def told(trades: list[dict[str, Any]], venue: str, interval: str, seconds: int) -> Message:
    """The simulator's page of candles of these trades, asked for when the last of them is not over."""
    by_minute: dict[int, list[TruthTrade]] = {}
    for row in trades:
        at_s = int(row["event_ts"].timestamp())
        fact = {"price": str(row["price"]), "size": str(row["size"]), "event_us": at_s * 1_000_000}
        facts = {name: row[name] for name in ("venue", "product_id", "trade_id", "taker_side")} | fact
        whole = TruthTrade(**facts, sequence=row["trade_id"], market_us=fact["event_us"])
        by_minute.setdefault(at_s - at_s % 60, []).append(whole)
    candles = [minutes.of_trades(own, start_s) for start_s, own in by_minute.items()]
    wide = minutes.merged([candle for candle in candles if candle], seconds)
    exchange = venue == "coinbase_exchange"
    items = [coinbase_rest.row(one) for one in reversed(wide)] if exchange else []
    items = items or [binance_pages.kline(one, seconds) for one in wide]
    headers = EXCHANGE_HEADERS if exchange else KLINES_HEADERS
    received = str(round(trades[-1]["event_ts"].timestamp() * 1e6))
    return Message(b"[" + b",".join(items) + b"]", headers=headers | {"interval": interval, "received_at": received})


def test_bars_of_15_minutes_and_of_a_day_are_the_venues_own_candles(bronze: Bronze) -> None:
    spark, settings = bronze.spark, bronze.settings
    gold_lake.fresh(spark, settings)
    markets = {"coinbase_exchange": "BTC-USD", "binance": "BTC-USDT"}
    trades = {venue: traded(venue, product) for venue, product in markets.items()}
    lengths = {"15m": 900, "1d": 86_400}
    asked = [(venue, interval) for venue in markets for interval in lengths]
    pages = [told(trades[venue], venue, interval, lengths[interval]) for venue, interval in asked]
    bronze.commit({0: pages}, NOON + 48 * HOUR)
    advance(bronze)
    gold_lake.append(spark, settings, contracts.TRADES, [row for own in trades.values() for row in own])
    gold_lake.complete(settings, contracts.TRADES, NOON + 72 * HOUR)

    def verdicts(venue: str, interval: str) -> list[str]:
        gold_tables.rewrite_dirty(spark, settings, gold.BARS)
        found = run_saved(settings, "candles", {"product": markets[venue], "bar": interval, "rows": "500"})
        return [row[2] for row in found.rows if row[0] == venue]

    for venue, interval in asked:
        # 15m: to 01:45 of the third day, whose last quarter and which itself were not over
        assert verdicts(venue, interval) == ["same"] * (2 if interval == "1d" else 2 * 96 + 7), (venue, interval)
    # one size that is told otherwise is seen in its quarter and in its day
    spark.sql(f"update {table_name(settings, contracts.TRADES)} set size = size + 1 where trade_id = 1000")
    for venue, interval in asked:
        assert verdicts(venue, interval).count("differs") == 1
