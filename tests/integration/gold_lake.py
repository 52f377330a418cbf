"""Silver rows written as silver writes them, and fresh tables, for the tests of gold, publication and readers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import fresh_tables
from pyspark.sql import SparkSession

from marketflow.contracts import gold, silver
from marketflow.contracts.columns import Table
from marketflow.lake.session import table_name
from marketflow.settings import Settings
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect

HOUR = timedelta(hours=1)
TABLES = (silver.TRADES, silver.QUOTES, silver.ASSET_PRICES, *gold.GOLD_TABLES)


def fresh(spark: SparkSession, settings: Settings) -> None:
    """Empty tables without history, in the lake and in Postgres."""
    fresh_tables.empty(spark, settings, TABLES)
    with connect(settings) as connection:
        for table in gold.GOLD_TABLES:
            connection.execute(f"delete from gold.{table.name}")
        connection.execute("delete from ops.publish_audit")
        connection.execute("delete from ops.gold_accounting")
        connection.execute("delete from ops.layer_mark")
        connection.execute("delete from live.price_metrics")
        connection.execute("delete from live.top_movers")


def at(text: str) -> datetime:
    """`10:30:05` or `09T10:30` on 2026-03-10 (or the named day of that March), UTC."""
    day, _, clock = text.rpartition("T")
    parts = [*(float(part) for part in clock.split(":")), 0.0, 0.0][:3]
    return datetime(2026, 3, int(day or 10), tzinfo=UTC) + timedelta(hours=parts[0], minutes=parts[1], seconds=parts[2])


def trade(trade_id: int, when: datetime, price: str = "100", size: str = "1", **other: Any) -> dict[str, Any]:
    """One row of silver.trades; BTC-USD bought by the taker unless said otherwise."""
    return {
        "venue": "coinbase_exchange",
        "product_id": "BTC-USD",
        "trade_id": trade_id,
        "price": Decimal(price),
        "size": Decimal(size),
        "notional": Decimal(price) * Decimal(size),
        "taker_side": "buy",
        "side_raw": "sell",
        "event_ts": when,
        "received_at": when + timedelta(milliseconds=40),
        "sequence": None,
        "origin": "simulated",
        "topic": "sim.crypto.trades.raw",
        "partition": 0,
        "offset": trade_id,
        "item_index": 0,
        "float_born": None,
    } | other


def observation(asset_id: str, when: datetime, price: str, poll: datetime, **other: Any) -> dict[str, Any]:
    """One row of silver.asset_prices, brought by the poll that began at `poll`."""
    absent = dict.fromkeys(column.name for column in silver.ASSET_PRICES.columns)
    return (
        absent
        | {
            "source": "coingecko",
            "asset_id": asset_id,
            "vs_currency": "usd",
            "last_updated": when,
            "symbol": asset_id[:3],
            "name": asset_id.title(),
            "price": Decimal(price),
            "market_cap_rank": sum(asset_id.encode()) % 97,
            "polled_at": poll + timedelta(seconds=1),
            "poll_id": f"poll-{poll.isoformat()}",
            "poll_started_at": poll,
            "origin": "simulated",
            "topic": "sim.crypto.prices.raw",
            "partition": 0,
            "offset": 0,
            "item_index": 0,
        }
        | other
    )


def touched(table: Table, rows: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """What silver writes beside its rows: product → hours."""
    found: dict[str, set[str]] = {}
    for row in rows:
        hour = row[table.hour_column or ""].replace(minute=0, second=0, microsecond=0)
        found.setdefault(row.get("product_id") or row["source"], set()).add(hour.isoformat())
    return {product: sorted(hours) for product, hours in found.items()}


def append(spark: SparkSession, settings: Settings, table: Table, rows: list[dict[str, Any]]) -> None:
    """One silver commit."""
    values = [tuple(row[name] for name in table.column_names) for row in rows]
    frame = spark.createDataFrame(values, table.spark_schema)
    summary = json.dumps(touched(table, rows))
    writer = frame.writeTo(table_name(settings, table)).option("snapshot-property.marketflow.touched", summary)
    writer.option("snapshot-property.marketflow.watermark", json.dumps({"t": {"0": len(rows)}})).append()


def complete(settings: Settings, table: Table, through: datetime) -> None:
    """Move silver's mark."""
    with connect(settings) as connection:
        freshness.mark(connection, table.qualified, through)


def stored(spark: SparkSession, settings: Settings, table: Table) -> list[dict[str, Any]]:
    """All rows of a lake table, sorted by its key, times aware."""
    rows = spark.table(table_name(settings, table)).toArrow().to_pylist()
    return sorted(rows, key=lambda row: tuple(row[name] for name in table.key))
