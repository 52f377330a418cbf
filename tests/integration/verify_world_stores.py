"""Writing the world of `verify_world` into every store: Kafka, the truth's files, the lake, PostgreSQL."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
from confluent_kafka import Producer
from pyspark.sql import SparkSession

from marketflow.contracts import bronze, gold, live, silver
from marketflow.contracts.columns import Table
from marketflow.features import frames
from marketflow.features.trades.kernel import trade_features
from marketflow.settings import Settings
from tests.integration.verify_world import (
    EPOCH,
    HEALED,
    LOST,
    PLACES,
    STEPS,
    WIDE,
    Row,
    World,
    floor,
    make_candles,
    make_prices,
    make_trades,
    us,
)

COINBASE, POLLED = "coinbase_exchange", "ccxt_kraken"


def build(settings: Settings, spark: SparkSession, folder: Path) -> World:
    """Make the world and write it everywhere."""
    world = World(settings, spark, folder)
    make_trades(world)
    make_prices(world)
    make_candles(world)
    publish(world)
    write_truth(world)
    write_lake(world)
    write_postgres(world)
    return world


def publish(world: World) -> None:
    """Send every record to Kafka and learn its offset."""
    producer = Producer({"bootstrap.servers": world.settings.bootstrap_servers, "acks": "all"})
    for short, records in world.records.items():
        topic = f"{world.settings.topic_prefix}crypto.{short}.raw"
        for record in records:

            def learned(error: Any, message: Any, record: Row = record) -> None:
                assert error is None
                record["offset"] = message.offset()

            record["topic"] = topic
            producer.produce(
                topic,
                record["value"],
                partition=record["partition"],
                callback=learned,
                timestamp=us(record["received_at"]) // 1000,
            )
        producer.flush(30)


def write_truth(world: World) -> None:
    world.truth_folder.mkdir(parents=True, exist_ok=True)
    trades = [
        {
            **{name: trade[name] for name in ("venue", "product_id", "trade_id")},
            **{"price": str(trade["price"]), "size": str(trade["size"]), "taker_side": trade["taker_side"]},
            **{"event_us": us(trade["event_ts"]), "sequence": trade["sequence"], "market_us": us(trade["event_ts"])},
        }
        for trade in world.truth_trades
    ]
    prices = [
        {
            **{name: price[name] for name in ("source", "asset_id", "vs_currency")},
            **{"price": str(price["price"]), "market_cap": str(price["market_cap"])},
            "last_updated_us": us(price["last_updated"]),
        }
        for price in world.truth_prices
    ]
    for name, facts in (("trades", trades), ("prices", prices)):
        lines = "".join(json.dumps(fact) + "\n" for fact in facts)
        # a line that is being written right now
        (world.truth_folder / f"{name}.ndjson").write_text(lines + '{"venue":"coinb')


def frame(world: World, table: Table, rows: list[Row]) -> Any:
    listed = []
    for row in rows:
        spot = row.get("record", row)
        whole = {**{name: spot.get(name) for name in ("topic", "partition", "offset")}, **row}
        listed.append(tuple(whole.get(name) for name in table.column_names))
    return world.spark.createDataFrame(listed, table.spark_schema)


def append(world: World, table: Table, rows: list[Row], **properties: str) -> None:
    writer = frame(world, table, rows).coalesce(1).writeTo(world.name(table.qualified))
    for name, value in properties.items():
        writer = writer.option(f"snapshot-property.marketflow.{name}", value)
    writer.append()


def write_lake(world: World) -> None:
    tables = {table.name: table for table in bronze.BRONZE_TABLES}
    for short, records in world.records.items():
        stamped = [r | {"kafka_timestamp": r["received_at"], "ingested_at": r["received_at"]} for r in records]
        append(world, tables[f"{short}_raw"], stamped)
    append(world, silver.REJECTED, world.rows["silver.rejected"])
    for table, short in (
        *((silver.TRADES, "trades"), (silver.QUOTES, "ticker")),
        *((silver.ASSET_PRICES, "prices"), (silver.CANDLES, "candles")),
    ):
        marks: dict[str, dict[str, int]] = defaultdict(dict)
        for record in world.records[short]:
            part = marks[record["topic"]]
            part[str(record["partition"])] = max(record["offset"] + 1, part.get(str(record["partition"]), 0))
        append(world, table, world.rows[table.qualified], watermark=json.dumps(marks))
    world.rows["gold.bars"] = bars(world)
    world.rows["gold.price_metrics"] = price_metrics(world)
    world.rows["gold.top_movers"] = top_movers(world)
    world.rows["gold.trade_features"] = features(world)
    for table, source, beside in (
        (gold.BARS, "silver.trades", {}),
        (gold.PRICE_METRICS, "silver.asset_prices", {}),
        (gold.TOP_MOVERS, "silver.asset_prices", {}),
        (gold.TRADE_FEATURES, "silver.trades", {"beside_snapshot": str(world.snapshot("silver.quotes"))}),
    ):
        assert table.hour_column
        hours = sorted({floor(row[table.hour_column], STEPS["1h"]) for row in world.rows[table.qualified]})
        append(
            *(world, table, world.rows[table.qualified]),
            silver_snapshot=str(world.snapshot(source)),
            complete_through=world.now.isoformat(),
            hours=json.dumps([hour.isoformat() for hour in hours]),
            **({"version": "2"} if table in (gold.BARS, gold.TRADE_FEATURES) else {}),
            **beside,
        )


def features(world: World) -> list[Row]:
    """By the kernel, from all of a product's trades: BTC-USD alone has more than 500."""
    book = pl.DataFrame(world.rows["silver.quotes"], schema=frames.schema(silver.QUOTES))
    rows = []
    for product in ("BTC-USD", "ETH-USD"):
        own = [row for row in world.rows["silver.trades"] if row["product_id"] == product]
        computed = trade_features(pl.DataFrame(own, schema=frames.schema(silver.TRADES)), book)
        rows += computed.filter(pl.col("history") >= 500).drop("history", "quote_is_later").to_dicts()
    return rows


def bars(world: World) -> list[Row]:
    """Every interval from a product's first trade to its last, by looking at every trade."""
    result = []
    for venue, product in (*((COINBASE, "BTC-USD"), (COINBASE, "ETH-USD")), (POLLED, "SOL-USD")):
        trades = [row for row in world.rows["silver.trades"] if row["product_id"] == product]
        trades.sort(key=lambda row: row["trade_id"])
        holes = [
            sorted((one["event_ts"], two["event_ts"]))
            for one, two in pairwise(trades)
            if two["trade_id"] != one["trade_id"] + 1
        ]
        for interval, step in STEPS.items():
            opened = floor(min(row["event_ts"] for row in trades), step)
            last = max(row["event_ts"] for row in trades)
            while opened <= last:
                inside = [row for row in trades if opened <= row["event_ts"] < opened + step]
                # ids that jump show no hole, so every bar may have one
                touched = venue == POLLED or any(early < opened + step and late >= opened for early, late in holes)
                complete = opened + step <= min(world.now, last)
                result.append(bar(venue, product, interval, opened, inside, touched, complete))
                opened += step
    return result


def bar(
    venue: str, product: str, interval: str, opened: datetime, inside: list[Row], touched: bool, complete: bool
) -> Row:
    key = {"venue": venue, "product_id": product, "interval": interval, "open_ts": opened}
    prices = [row["price"] for row in inside]
    volume = sum((row["size"] for row in inside), Decimal(0))
    notional = sum((row["notional"] for row in inside), Decimal(0))
    return {
        **key,
        **{"open": prices[0] if prices else None, "close": prices[-1] if prices else None},
        **{"high": max(prices, default=None), "low": min(prices, default=None), "volume": volume, "notional": notional},
        "vwap": WIDE.divide(notional, volume).quantize(PLACES, context=WIDE) if volume else None,
        "trade_count": len(inside),
        "buy_volume": sum((row["size"] for row in inside if row["taker_side"] == "buy"), Decimal(0)),
        "sell_volume": sum((row["size"] for row in inside if row["taker_side"] == "sell"), Decimal(0)),
        **{"has_gap": touched, "is_complete": complete},
        "first_trade_id": inside[0]["trade_id"] if inside else None,
        "last_trade_id": inside[-1]["trade_id"] if inside else None,
    }


def price_metrics(world: World) -> list[Row]:
    """Each observation beside all of its asset's, in plain floating point."""
    result = []
    series: dict[str, list[Row]] = defaultdict(list)
    for row in world.rows["silver.asset_prices"]:
        series[row["asset_id"]].append(row)
    for rows in series.values():
        for row in rows:
            result.append({**row, "ts": row["last_updated"], **measures(rows, row)})
    return result


def measures(rows: list[Row], row: Row) -> Row:
    def age(other: Row) -> float:
        return (row["last_updated"] - other["last_updated"]) / timedelta(seconds=1)

    price = float(row["price"])

    def change(seconds: int) -> float | None:
        ages = {age(other): float(other["price"]) for other in rows if seconds <= age(other) <= seconds + 90}
        return 100 * (price / ages[min(ages)] - 1) if ages else None

    recent = [float(other["price"]) for other in rows if 0 <= age(other) < 300]
    mean = math.fsum(recent) / len(recent)
    weights = [(2 ** (-age(other) / 61.8), float(other["price"])) for other in rows if 0 <= age(other) < 1236]
    steps = [math.log(two / one) ** 2 for one, two in pairwise(recent)]
    enough = len(recent) > 1
    spread = math.fsum((one - mean) ** 2 for one in recent)
    return {
        **{"change_1min": change(60), "change_5min": change(300), "sma_5m": mean, "observations_5m": len(recent)},
        "ema_3m": math.fsum(w * p for w, p in weights) / math.fsum(w for w, _ in weights),
        "volatility_5m": math.sqrt(spread / (len(recent) - 1)) if enough else None,
        "realized_volatility_5m": math.sqrt(math.fsum(steps)) if enough else None,
    }


def top_movers(world: World) -> list[Row]:
    """As of every poll, from what was known then."""
    metrics = {(row["asset_id"], row["ts"]): row for row in world.rows["gold.price_metrics"]}
    prices = world.rows["silver.asset_prices"]
    result = []
    for started in sorted({row["poll_started_at"] for row in prices}):
        latest: dict[str, datetime] = {}
        for row in prices:
            if row["poll_started_at"] <= started:
                latest[row["asset_id"]] = max(row["last_updated"], latest.get(row["asset_id"], EPOCH))
        known = [metrics[key] for key in latest.items() if started - key[1] < timedelta(minutes=5)]
        known = [row for row in known if row["change_5min"] is not None]
        gainers = sorted(known, key=lambda row: (-row["change_5min"], row["market_cap_rank"]))[:5]
        losers = sorted(known, key=lambda row: (row["change_5min"], row["market_cap_rank"]))
        losers = [row for row in losers if row not in gainers][:5]
        poll = next(row["poll_id"] for row in prices if row["poll_started_at"] == started)
        for direction, places in (("gainer", gainers), ("loser", losers)):
            for rank, row in enumerate(places, start=1):
                more = {"snapshot_ts": started, "poll_id": poll, "direction": direction, "rank": rank}
                result.append({**row, **more, "observed_at": row["ts"]})
    return result


# of gold.product_day nothing is written here: test_gold_days has it judged
WRITTEN = tuple(table for table in gold.GOLD_TABLES if table is not gold.PRODUCT_DAY)


def write_postgres(world: World) -> None:
    copies = {table.qualified: world.rows[table.qualified] for table in WRITTEN}
    copies |= {
        "live.asset_observation": world.rows["silver.asset_prices"],
        "live.price_metrics": world.rows["gold.price_metrics"],
        "live.top_movers": world.rows["gold.top_movers"],
    }
    contracts = {table.qualified: table for table in (*gold.GOLD_TABLES, *live.LIVE_TABLES)}
    with world.postgres() as connection, connection.transaction():
        for qualified, rows in copies.items():
            names = contracts[qualified].column_names
            marks = ", ".join(["%s"] * len(names))
            columns = ", ".join(f'"{name}"' for name in names)
            connection.cursor().executemany(
                f"insert into {qualified} ({columns}) values ({marks})",
                [tuple(row.get(name) for name in names) for row in rows],
            )
        write_ops(world, connection)


def write_ops(world: World, connection: psycopg.Connection[Any]) -> None:
    tables = [f"bronze.{name}_raw" for name in ("trades", "ticker", "prices", "candles")]
    tables += ["silver.trades", "silver.quotes", "silver.asset_prices", "silver.candles"]
    tables += [table.qualified for table in gold.GOLD_TABLES]
    connection.cursor().executemany(
        "insert into ops.layer_mark (table_name, complete_through, updated_at) values (%s, %s, now())",
        [(name, world.now) for name in tables],
    )
    connection.cursor().executemany(
        "insert into ops.publish_audit (table_name, last_snapshot_id, published_at, hours, row_count) "
        "values (%s, %s, now(), 1, 1)",
        [(table.qualified, world.snapshot(table.qualified)) for table in WRITTEN],
    )
    connection.execute(
        "insert into ops.trade_gap values "
        "('coinbase_exchange', 'BTC-USD', %s, %s, now(), 'producer', 'drop', 'open', 0)",
        (LOST[0], LOST[-1]),
    )
    connection.execute(
        "insert into ops.trade_gap values "
        "('coinbase_exchange', 'BTC-USD', %s, %s, now(), 'producer', 'drop', 'healed', 1, %s)",
        (HEALED[0], HEALED[-1], world.now - timedelta(minutes=20)),
    )
    shorts = {"trades": "trades", "quotes": "ticker", "asset_prices": "prices", "candles": "candles"}
    for kind, short in shorts.items():
        write_account(world, connection, kind, short)
    write_gold_accounts(world, connection)


def write_account(world: World, connection: psycopg.Connection[Any], kind: str, short: str) -> None:
    """One balanced account over everything; which messages were ignored is not verify's to know from here."""
    marks: dict[str, dict[str, int]] = defaultdict(dict)
    for record in world.records[short]:
        marks[record["topic"]][str(record["partition"])] = record["offset"] + 1
    start = {topic: dict.fromkeys(parts, 0) for topic, parts in marks.items()}
    messages = len(world.records[short])
    accepted = len(world.rows[f"silver.{kind}"])
    rejected = sum(row["source_table"] == f"silver.{kind}" for row in world.rows["silver.rejected"])
    connection.execute(
        "insert into ops.silver_accounting (table_name, snapshot_id, committed_at, first_offsets, next_offsets, "
        "messages, ignored, ignored_by_name, parsed, unparseable, items, accepted, duplicate, rejected, already_here, "
        "touched_hours) "
        "values (%s, %s, now(), %s, %s, %s, 0, '{}', %s, 0, %s, %s, 0, %s, 0, '{}')",
        (
            *(f"silver.{kind}", world.snapshot(f"silver.{kind}"), json.dumps(start), json.dumps(marks)),
            *(messages, messages, accepted + rejected, accepted, rejected),
        ),
    )


def write_gold_accounts(world: World, connection: psycopg.Connection[Any]) -> None:
    """What became of every trade of an hour; those of the library's venue have no features."""
    counted: dict[tuple[str, datetime], list[int]] = defaultdict(lambda: [0, 0])
    for table, place in (("silver.trades", 0), ("gold.trade_features", 1)):
        for row in world.rows[table]:
            if row["venue"] == COINBASE:
                counted[row["product_id"], floor(row["event_ts"], STEPS["1h"])][place] += 1
    snapshot = world.snapshot("gold.trade_features")
    connection.cursor().executemany(
        "insert into ops.gold_accounting (table_name, venue, product_id, hour, trades, row_count, left_out, "
        "snapshot_id, written_at) values ('gold.trade_features', %s, %s, %s, %s, %s, %s, %s, now())",
        [
            (COINBASE, product, hour, trades, rows, trades - rows, snapshot)
            for (product, hour), (trades, rows) in counted.items()
        ],
    )
