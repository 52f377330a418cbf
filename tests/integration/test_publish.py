"""What PostgreSQL shows of gold, and where the mart goes from gold to live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from gold_lake import HOUR, append, at, complete, fresh, observation, stored, trade
from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.contracts.gold import BARS, PRICE_METRICS, TOP_MOVERS
from marketflow.contracts.silver import ASSET_PRICES, TRADES
from marketflow.errors import BusyError, ConfigurationError
from marketflow.lake import gold
from marketflow.lake.session import table_name
from marketflow.settings import Settings
from marketflow.stack.status import layers_of
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock
from marketflow.warehouse.publish import publish

Row = dict[str, Any]
NOW = at("20:00")


@pytest.fixture
def lake_now(embedded: Settings, lake: SparkSession) -> tuple[SparkSession, Settings]:
    """Empty silver, gold and PostgreSQL."""
    fresh(lake, embedded)
    return lake, embedded


def write_bars(spark: SparkSession, settings: Settings, *trades: Row, through: datetime) -> None:
    """One silver commit, then gold."""
    append(spark, settings, TRADES, list(trades))
    complete(settings, TRADES, through)
    gold.rewrite_dirty(spark, settings, BARS)


def every_ten_minutes(first_id: int, start: datetime, end: datetime) -> list[Row]:
    count = int((end - start) / timedelta(minutes=10))
    return [trade(first_id + i, start + i * timedelta(minutes=10), price=f"{100 + i}.125") for i in range(count)]


def published(settings: Settings, table: Table, schema: str = "gold") -> list[Row]:
    """All rows in PostgreSQL, in key order."""
    columns = ", ".join(f'"{name}"' for name in table.column_names)
    with connect(settings, "marketflow_reader") as connection:
        rows = connection.execute(f"select {columns} from {schema}.{table.name}").fetchall()  # type: ignore[arg-type]
    named = [dict(zip(table.column_names, row, strict=True)) for row in rows]
    return sorted(named, key=lambda row: tuple(row[name] for name in table.key))


def audit(settings: Settings, table: Table) -> Any:
    with connect(settings) as connection:
        return connection.execute(
            "select last_snapshot_id, published_through, hours, row_count from ops.publish_audit where table_name = %s",
            (table.qualified,),
        ).fetchone()


def test_what_is_published_equals_the_lake_row_for_row(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    write_bars(spark, settings, *every_ten_minutes(1, at("7:05"), at("10:20")), through=at("10:20"))
    quoted = 'Say "hi", it\'s \\N; ünï'  # what a careless copy would break on
    prices = [
        observation(
            asset,
            at("9:00") + i * timedelta(seconds=30, microseconds=7),
            f"{i + 1}.1",
            at("9:00:05") + i * timedelta(seconds=30),
            name=name,
        )
        for i in range(40)
        for asset, name in (("bitcoin", quoted), ("ether", ""))
    ]
    append(spark, settings, ASSET_PRICES, prices)
    for table in (PRICE_METRICS, TOP_MOVERS):
        gold.rewrite_dirty(spark, settings, table)
    for table, rows in ((BARS, None), (PRICE_METRICS, 80), (TOP_MOVERS, None)):
        report = publish(settings, table.qualified, now=NOW)
        assert published(settings, table) == stored(spark, settings, table)
        assert report.rows == len(stored(spark, settings, table)) > 0
        assert rows is None or report.rows == rows
        assert report.whole
    assert audit(settings, BARS)[1] == at("10:00")


def test_the_next_publication_replaces_only_the_hours_that_gold_replaced(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    write_bars(spark, settings, *every_ten_minutes(1, at("6:05"), at("10:20")), through=at("10:30"))
    publish(settings, "gold.bars", now=NOW)
    with connect(settings) as connection:  # shows which rows are left alone
        connection.execute("update gold.bars set trade_count = -1")
    write_bars(spark, settings, *every_ten_minutes(100, at("11:05"), at("12:20")), through=at("12:30"))
    report = publish(settings, "gold.bars", now=NOW)
    # the fourth hour is midnight's, where the day's bar lies
    assert (report.hours, report.whole, report.published_through) == (4, False, at("12:00"))
    assert (report.interval_start, report.interval_end) == (at("0:00"), at("13:00"))
    left = [row for row in published(settings, BARS) if at("1:00") < row["open_ts"] < at("10:00")]
    assert {row["trade_count"] for row in left} == {-1}
    lake_rows = stored(spark, settings, BARS)
    changed = [row for row in lake_rows if row["open_ts"] >= at("10:00") or row["interval"] == "1d"]
    assert [row for row in published(settings, BARS) if row["trade_count"] != -1] == changed
    looked = "select looked_at, published_at from ops.publish_audit where table_name = 'gold.bars'"
    with connect(settings) as connection:
        before: Any = connection.execute(looked).fetchone()
    again = publish(settings, "gold.bars", now=NOW)
    assert (again.hours, again.rows, again.published_through) == (0, 0, at("12:00"))
    assert (again.interval_start, again.interval_end) == (None, None)
    # that it looked and found nothing to do is known too: a copy is late where nobody looks
    with connect(settings) as connection:
        after: Any = connection.execute(looked).fetchone()
        connection.execute("update ops.publish_audit set looked_at = now() - interval '51 minutes'")
        (late,) = (one for one in layers_of(connection, datetime.now(UTC)) if one.table_name == "postgres gold.bars")
    assert (after[0] > before[0], after[1]) == (True, before[1])
    assert late.late


def test_a_publication_that_dies_before_its_commit_changed_nothing_and_is_made_up_for(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    write_bars(spark, settings, *every_ten_minutes(1, at("7:05"), at("10:20")), through=at("10:30"))
    publish(settings, "gold.bars", now=NOW)
    before, audited = published(settings, BARS), audit(settings, BARS)
    write_bars(spark, settings, *every_ten_minutes(50, at("10:25"), at("11:20")), through=at("11:30"))
    with connect(settings) as connection:  # the rows are copied already when the audit row is written
        connection.execute(
            "create function ops.fail() returns trigger language plpgsql as $$ begin raise 'killed here'; end $$"
        )
        connection.execute("create trigger fail before update on ops.publish_audit execute function ops.fail()")
    try:
        with pytest.raises(psycopg.Error, match="killed here"):
            publish(settings, "gold.bars", now=NOW)
    finally:
        with connect(settings) as connection:
            connection.execute("drop function ops.fail() cascade")
    assert published(settings, BARS) == before
    assert audit(settings, BARS) == audited
    publish(settings, "gold.bars", now=NOW)
    assert published(settings, BARS) == stored(spark, settings, BARS)


def test_where_the_last_published_snapshot_has_expired_everything_is_published_anew(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    write_bars(spark, settings, *every_ten_minutes(1, at("7:05"), at("10:20")), through=at("10:30"))
    publish(settings, "gold.bars", now=NOW)
    with connect(settings) as connection:
        connection.execute("update gold.bars set trade_count = -1 where open_ts < '2026-03-10T08:00Z'")
    write_bars(spark, settings, *every_ten_minutes(50, at("10:25"), at("11:20")), through=at("11:30"))
    expire = f"table => '{table_name(settings, BARS)}', older_than => timestamp'2100-01-01', retain_last => 1"
    spark.sql(f"call lake.system.expire_snapshots({expire})")
    assert publish(settings, "gold.bars", now=NOW).whole
    assert published(settings, BARS) == stored(spark, settings, BARS)


def test_rows_older_than_the_days_kept_are_neither_published_nor_kept(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    write_bars(spark, settings, *every_ten_minutes(1, at("9T22:00"), at("10T02:00")), through=at("10T03:00"))
    days = timedelta(days=settings.publish_days)
    publish(settings, "gold.bars", now=at("9T23:30") + days)
    assert min(row["open_ts"] for row in published(settings, BARS)) == at("9T23:00")
    report = publish(settings, "gold.bars", now=at("10T00:00") + days)
    assert report.trimmed == 77
    assert min(row["open_ts"] for row in published(settings, BARS)) == at("10T00:00")


def test_two_publications_of_a_table_do_not_meet_and_only_gold_is_published(embedded: Settings) -> None:
    with table_lock(embedded, "published gold.bars"), pytest.raises(BusyError):
        publish(embedded, "gold.bars")
    with pytest.raises(ConfigurationError, match=r"silver\.trades is not published"):
        publish(embedded, "silver.trades")


def test_the_mart_shows_each_row_once_across_the_border_of_gold_and_live(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    step = timedelta(seconds=30)
    prices = [
        observation(asset, at("9:30") + i * step, f"{100 + i * factor % 17}", at("9:30:05") + i * step)
        for i in range(120)  # until 10:30
        for factor, asset in enumerate(("bitcoin", "ether", "solana"), 3)
    ]
    append(spark, settings, ASSET_PRICES, prices)
    complete(settings, ASSET_PRICES, at("10:29"))
    for table in (PRICE_METRICS, TOP_MOVERS):
        gold.rewrite_dirty(spark, settings, table)
        publish(settings, table.qualified, now=NOW)
        assert audit(settings, table)[1] == at("10:00")
    all_metrics, all_movers = stored(spark, settings, PRICE_METRICS), stored(spark, settings, TOP_MOVERS)

    late = at("9:45") + step * 3  # told late: the stream has it, publication not yet
    only_gold = at("10:20") + step  # the stream was away when it came
    with connect(settings) as connection:
        for table, column in ((PRICE_METRICS, "ts"), (TOP_MOVERS, "snapshot_ts")):
            connection.execute(f"insert into live.{table.name} select * from gold.{table.name}")  # type: ignore[arg-type]
            seconds = timedelta(seconds=5 if table is TOP_MOVERS else 0)
            connection.execute(f"delete from gold.{table.name} where {column} = %s", (late + seconds,))  # type: ignore[arg-type]
            connection.execute(f"delete from live.{table.name} where {column} = %s", (only_gold + seconds,))  # type: ignore[arg-type]
        # the stream's version of a published snapshot has one more place; a snapshot comes whole from one side
        connection.execute(
            "insert into live.top_movers select source, vs_currency, snapshot_ts, poll_id, direction, 9, asset_id, "
            "symbol, name, price, change_1min, change_5min, volatility_5m, market_cap_rank, observed_at "
            "from live.top_movers where rank = 1 and snapshot_ts = %s",
            (at("9:55:05"),),
        )
        assert connection.execute("select count(*) from live.top_movers where rank = 9").fetchone() == (1,)
    assert published(settings, PRICE_METRICS, "mart") == all_metrics
    assert published(settings, TOP_MOVERS, "mart") == all_movers
    with connect(settings, "marketflow_reader") as connection:
        layers = dict(connection.execute("select ts, min(layer) from mart.price_metrics group by ts").fetchall())
        assert (layers[at("9:59:30")], layers[at("10:00")]) == ("gold", "live")
        assert (layers[late], layers[only_gold]) == ("live", "gold")
        gainers = connection.execute(
            "select snapshot_ts, rank, asset_id from mart.top_5_gainers order by rank"
        ).fetchall()
        losers = connection.execute("select asset_id from mart.top_5_losers").fetchall()
        newest = [row for row in all_movers if row["snapshot_ts"] == all_movers[-1]["snapshot_ts"]]
        assert gainers == [
            (row["snapshot_ts"], row["rank"], row["asset_id"]) for row in newest if row["direction"] == "gainer"
        ]
        assert losers == []  # three assets, all of them among the five gainers
        enriched = connection.execute(
            "select timestamp, id, symbol, price, change_1min, change_5min, sma, ema, volatility "
            "from mart.enriched_prices where id = 'solana' order by timestamp desc limit 1"
        ).fetchone()
    last = max((row for row in all_metrics if row["asset_id"] == "solana"), key=lambda row: row["ts"])
    names = ("ts", "asset_id", "symbol", "price", "change_1min", "change_5min", "sma_5m", "ema_3m", "volatility_5m")
    assert enriched == tuple(last[name] for name in names)


def test_before_the_first_publication_the_mart_is_live_alone(lake_now: tuple[SparkSession, Settings]) -> None:
    _, settings = lake_now
    row = dict.fromkeys(PRICE_METRICS.column_names) | {
        "source": "coingecko", "asset_id": "bitcoin", "vs_currency": "usd", "ts": at("9:00"), "symbol": "btc",
        "name": "Bitcoin", "price": 1, "polled_at": at("9:00") + HOUR, "sma_5m": 1, "ema_3m": 1, "observations_5m": 1,
    }  # fmt: skip
    with connect(settings) as connection:
        marks = ", ".join(["%s"] * len(row))
        connection.execute(f"insert into live.price_metrics values ({marks})", tuple(row.values()))  # type: ignore[arg-type]
    assert [found["ts"] for found in published(settings, PRICE_METRICS, "mart")] == [at("9:00")]
