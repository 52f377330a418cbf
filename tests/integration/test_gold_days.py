"""gold.product_day: made of gold.bars by the day, judged by verify and by the trades, and copied to PostgreSQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from bars_oracle import Row, market
from gold_lake import append, at, complete, fresh, stored, trade
from pyspark.sql import SparkSession

from marketflow import verify
from marketflow.contracts.gold import BARS, PRODUCT_DAY
from marketflow.contracts.silver import TRADES
from marketflow.lake import gold
from marketflow.lake.session import table_name
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect
from marketflow.warehouse.publish import publish

NAME = PRODUCT_DAY.qualified


@pytest.fixture
def lake_now(embedded: Settings, lake: SparkSession) -> tuple[SparkSession, Settings]:
    """Empty silver and gold."""
    fresh(lake, embedded)
    return lake, embedded


def problems(settings: Settings, *layers: str) -> list[tuple[str, str, str]]:
    """What verify says of the table: layer, kind and product."""
    report = verify.run(settings, at_rest=True, layers=layers or ("gold",), output=lambda line: None)
    return [(one.layer, one.kind, one.product) for one in report.problems if one.table == NAME]


def arrive(spark: SparkSession, settings: Settings, rows: list[Row], through: datetime) -> list[datetime]:
    """New trades, bars of them, then days of the bars; the days that were written."""
    if rows:
        append(spark, settings, TRADES, rows)
    complete(settings, TRADES, through)
    gold.rewrite_dirty(spark, settings, BARS)
    return list(gold.rewrite_dirty(spark, settings, PRODUCT_DAY).hours)


def told(spark: SparkSession, settings: Settings) -> dict[tuple[str, int], tuple[object, ...]]:
    """Product and day of March: close, trades, hours."""
    return {
        (row["product_id"], row["day"].day): (row["close"], row["trade_count"], row["hours"])
        for row in stored(spark, settings, PRODUCT_DAY)
    }


def by_trades(trades: list[Row], *days: int) -> dict[tuple[str, int], tuple[object, ...]]:
    """The same of the trades themselves."""
    found = {}
    for product in {row["product_id"] for row in trades}:
        for day in days:
            own = sorted(
                (t for t in trades if t["product_id"] == product and t["event_ts"].day == day),
                key=lambda row: row["trade_id"],
            )
            if own:
                hours = {t["event_ts"].hour for t in own}
                found[product, day] = (own[-1]["price"], len(own), max(hours) - min(hours) + 1)
    return found


def test_days_follow_their_bars_and_verify_and_postgres_agree(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    trades = market(1, at("9T21:00"), at("11T02:00"), step_s=180, seed=41)
    trades += market(1, at("9T22:00"), at("11T01:50"), step_s=400, seed=42, product_id="ETH-USD")
    arrive(spark, settings, [t for t in trades if t["event_ts"] < at("9T23:00")], at("9T23:00"))
    assert stored(spark, settings, PRODUCT_DAY) == []  # no day has ended
    assert problems(settings, "gold", "postgres") == []

    written = arrive(spark, settings, [t for t in trades if t["event_ts"] >= at("9T23:00")], at("11T02:10"))
    assert written == [at("9T00:00"), at("10T00:00"), at("11T00:00")]
    # the open day is not there, though it has a bar
    assert told(spark, settings) == by_trades(trades, 9, 10)
    assert all(row["is_complete"] for row in stored(spark, settings, PRODUCT_DAY))
    assert problems(settings) == []
    assert arrive(spark, settings, [], at("11T02:10")) == []

    # a trade that is late by two days: its day alone and the open one are written again
    late = trade(trades[0]["trade_id"] - 1, at("9T21:00") - timedelta(seconds=1), "77")
    trades.insert(0, late)
    assert arrive(spark, settings, [late], at("11T02:20")) == [at("9T00:00"), at("11T00:00")]
    assert told(spark, settings) == by_trades(trades, 9, 10)
    first = min((row for row in stored(spark, settings, PRODUCT_DAY)), key=lambda row: (row["product_id"], row["day"]))
    assert first["open"] == Decimal(77)

    report = publish(settings, NAME, now=at("20T00:00"))
    assert report.rows == 4
    with connect(settings, "marketflow_reader") as connection:
        served = connection.execute("select * from mart.product_day order by venue, product_id, day").fetchall()
    assert [row[:3] for row in served] == [
        (row["venue"], row["product_id"], row["day"]) for row in stored(spark, settings, PRODUCT_DAY)
    ]
    assert problems(settings, "gold", "postgres") == []

    # a day that is backfilled after its bars changed is judged by what it saw, and its mark stays
    fix = trade(trades[1]["trade_id"] + 100_000, at("10T23:59:59"), "123")
    append(spark, settings, TRADES, [fix])
    gold.rewrite_dirty(spark, settings, BARS)
    gold.backfill_hours(spark, settings, PRODUCT_DAY, [at("10T17:00")])  # any hour of it
    assert told(spark, settings)["BTC-USD", 10][0] == Decimal(123)
    assert problems(settings) == []
    assert at("10T00:00") in gold.dirty_hours(spark, settings, PRODUCT_DAY)

    # faults that verify must find: a wrong volatility, a day that is gone, a wrong copy
    name = table_name(settings, PRODUCT_DAY)
    spark.sql(f"update {name} set volatility = volatility * 1.001 where product_id = 'ETH-USD'")
    assert problems(settings) == [("gold", "differing", "ETH-USD")]
    spark.sql(f"delete from {name} where product_id = 'ETH-USD' and day(day) = 9")
    assert ("gold", "missing", "ETH-USD") in problems(settings)
    with connect(settings) as connection:
        connection.execute("update gold.product_day set gap_minutes = gap_minutes + 1 where product_id = 'BTC-USD'")
    assert problems(settings, "postgres") == [("postgres", "differing", "BTC-USD")]
