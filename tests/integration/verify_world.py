"""A small consistent world, written into every store by this file's own simple code: what `verify` must call clean.

Two products traded for seventy minutes with one hole of five ids, a heal, duplicates and broken messages; twelve coins
polled for twenty-five minutes. Nothing here is imported from what verify judges or from verify itself but the tables'
contracts (to make rows of the right width) and the writers' transport: Spark, psycopg, confluent-kafka.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer
from pyspark.sql import SparkSession

from marketflow.contracts import bronze, gold, live, silver
from marketflow.contracts.columns import Table
from marketflow.settings import Settings

Row = dict[str, Any]
PLACES = Decimal(1).scaleb(-18)
WIDE = Context(prec=120, rounding=ROUND_HALF_EVEN)
SIDES = {"buy": "sell", "sell": "buy"}
STEPS = {"1m": timedelta(minutes=1), "5m": timedelta(minutes=5), "1h": timedelta(hours=1)}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOST = range(1201, 1206)  # BTC-USD ids that nobody received: an open hole
HEALED = range(1301, 1304)  # BTC-USD ids that came by a REST page


def us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def floor(moment: datetime, step: timedelta) -> datetime:
    return EPOCH + (moment - EPOCH) // step * step


@dataclass
class World:
    """What is in every store. Rows are dicts by column name."""

    settings: Settings
    spark: SparkSession
    truth_folder: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    truth_trades: list[Row] = field(default_factory=list)
    truth_prices: list[Row] = field(default_factory=list)
    records: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def name(self, qualified: str) -> str:
        """The Iceberg table's name in Spark."""
        layer, name = qualified.split(".")
        return f"lake.{self.settings.namespace(layer)}.{name}"

    def snapshot(self, qualified: str) -> int:
        """Id of the table's current snapshot."""
        refs = self.spark.sql(f"select snapshot_id from {self.name(qualified)}.refs where name = 'main'")
        return refs.collect()[0].snapshot_id

    def roll_back(self, qualified: str, snapshot_id: int) -> None:
        """Make an earlier snapshot current again."""
        name = self.name(qualified).removeprefix("lake.")
        self.spark.sql(f"call lake.system.rollback_to_snapshot('{name}', {snapshot_id})").collect()

    def postgres(self) -> psycopg.Connection[Any]:
        """As the writer, who owns the tables."""
        return psycopg.connect(self.settings.dsn(), options="-c timezone=UTC", autocommit=True)


def build(settings: Settings, spark: SparkSession, folder: Path) -> World:
    """Make the world and write it everywhere."""
    world = World(settings, spark, folder)
    make_trades(world)
    make_prices(world)
    publish(world)
    write_truth(world)
    write_lake(world)
    write_postgres(world)
    return world


def header(world: World, received: datetime, venue: str, channel: str, **more: Any) -> Row:
    known = {"schema_version": "1", "origin": "simulated", "connection_id": "c1"}
    return {"venue": venue, "channel": channel, "received_at": received, **known, **more}


def make_trades(world: World) -> None:
    """Trades every 7 s and 9 s, their messages, and what silver makes of them."""
    begin = world.now - timedelta(minutes=70)
    events = []
    for product, first_id, step_s, base, partition in (("BTC-USD", 1000, 7, 60000, 1), ("ETH-USD", 5000, 9, 3000, 2)):
        for number in range(int(70 * 60 / step_s) - 5):
            # ETH-USD falls silent for four minutes: its empty bars are rows
            pause = timedelta(minutes=4) if product == "ETH-USD" and number > 200 else timedelta(0)
            made = begin + timedelta(seconds=number * step_s, microseconds=number * 137 % 1000) + pause
            if made > world.now - timedelta(seconds=20):
                break
            trade = {
                "venue": "coinbase_exchange",
                "product_id": product,
                "trade_id": first_id + number,
                "price": Decimal(base) + Decimal(number * 37 % 101) / 8,
                "size": Decimal(number % 13 + 1) / Decimal(1000) + Decimal("0.00000001"),
                "taker_side": "buy" if number % 3 else "sell",
                "event_ts": made,
                "sequence": 90_000_000 + 11 * number,
            }
            world.truth_trades.append(trade)
            events.append((made, partition, trade))
    for made, partition, trade in sorted(events, key=lambda event: event[0]):
        say_trade(world, made + timedelta(milliseconds=80), partition, trade)
    say_oddities(world)


def say_trade(world: World, received: datetime, partition: int, trade: Row) -> None:
    if trade["product_id"] == "BTC-USD" and trade["trade_id"] in (*LOST, *HEALED):
        if trade["trade_id"] == HEALED[-1]:
            say_heal(world, received + timedelta(seconds=30), partition)
        return
    message = match(trade)
    head = header(world, received, "coinbase_exchange", "matches")
    accept_trade(world, trade, place(world, "trades", partition, json.dumps(message), head), 0)
    if trade["trade_id"] % 50 == 0:  # sent twice: a duplicate that silver drops
        place(world, "trades", partition, json.dumps(message | {"type": "last_match"}), head)
    if trade["trade_id"] % 40 == 0:
        beat = {
            "type": "heartbeat",
            "sequence": 1,
            "last_trade_id": trade["trade_id"],
            "product_id": trade["product_id"],
        }
        place(world, "trades", partition, json.dumps(beat), head)
    say_quote(world, received, partition, trade)


def match(trade: Row) -> Row:
    return {
        "type": "match",
        "trade_id": trade["trade_id"],
        "side": SIDES[trade["taker_side"]],
        "size": str(trade["size"]),
        "price": str(trade["price"]),
        "product_id": trade["product_id"],
        "sequence": trade["sequence"],
        "time": text(trade["event_ts"]),
    }


def say_heal(world: World, received: datetime, partition: int) -> None:
    healed = [t for t in world.truth_trades if t["product_id"] == "BTC-USD" and t["trade_id"] in HEALED]
    page = [
        {key: value for key, value in match(trade).items() if key in ("time", "trade_id", "price", "size", "side")}
        for trade in reversed(healed)
    ]
    head = header(world, received, "coinbase_exchange", "trades", product_id="BTC-USD", http_status=200)
    spot = place(world, "trades", partition, json.dumps(page), head | {"origin": "heal"})
    for index, trade in enumerate(reversed(healed)):
        accept_trade(world, trade | {"sequence": None}, spot, index)


def accept_trade(world: World, trade: Row, spot: Row, index: int) -> None:
    notional = WIDE.multiply(trade["price"], trade["size"]).quantize(PLACES, context=WIDE)
    more = {"notional": notional, "side_raw": SIDES[trade["taker_side"]], "record": spot, "item_index": index}
    world.rows["silver.trades"].append({**trade, **more, "received_at": spot["received_at"], "origin": spot["origin"]})


def say_quote(world: World, received: datetime, partition: int, trade: Row) -> None:
    bid, ask = trade["price"] - Decimal("0.25"), trade["price"] + Decimal("0.25")
    message = {
        **{"type": "ticker", "sequence": trade["sequence"], "product_id": trade["product_id"]},
        **{"price": str(trade["price"]), "open_24h": "1", "volume_24h": "12.5", "low_24h": "0.5", "high_24h": "99"},
        **{"best_bid": str(bid), "best_bid_size": "0.5", "best_ask": str(ask), "best_ask_size": "0.75"},
        **{"side": trade["taker_side"], "time": text(trade["event_ts"]), "trade_id": trade["trade_id"]},
    }
    spot = place(
        world, "ticker", partition, json.dumps(message), header(world, received, "coinbase_exchange", "ticker")
    )
    figures = {"open_24h": 1, "high_24h": 99, "low_24h": Decimal("0.5"), "volume_24h": Decimal("12.5")}
    world.rows["silver.quotes"].append(
        {
            **{name: trade[name] for name in ("venue", "product_id", "sequence", "event_ts")},
            **{"best_bid": bid, "best_bid_size": Decimal("0.5"), "best_ask": ask, "best_ask_size": Decimal("0.75")},
            **{"last_price": trade["price"], "last_trade_id": trade["trade_id"]},
            **{name: Decimal(value) for name, value in figures.items()},
            **{"received_at": received, "origin": "simulated", "record": spot, "item_index": 0},
        }
    )


def say_oddities(world: World) -> None:
    """Messages that carry no row: ignored by name, or quarantined."""
    received = world.now - timedelta(minutes=30)
    head = header(world, received, "coinbase_exchange", "matches")
    good = match(world.truth_trades[0])
    place(world, "trades", 0, '{"type":"subscriptions","channels":[]}', head)
    place(world, "trades", 0, '{"type":"status","why":"unknown types are ignored"}', head)
    for value, index in (
        ('{"type":"match","trade_id":', -1),  # cut short
        (json.dumps(good)[:-1] + ",}", -1),  # a trailing comma is no JSON
        (json.dumps(good | {"size": "-1"}), 0),  # a negative size
        (json.dumps(good | {"side": "up"}), 0),  # an unknown side
        (json.dumps(good | {"time": "0001-01-01T00:00:00.000000Z"}), 0),  # the placeholder time
    ):
        quarantine(world, "trades", place(world, "trades", 0, value, head), index)
    crossed = {"type": "ticker", "sequence": 5, "product_id": "BTC-USD", "time": good["time"], "best_bid": "2"}
    spot = place(world, "ticker", 0, json.dumps(crossed | {"best_ask": "1"}), head | {"channel": "ticker"})
    quarantine(world, "quotes", spot, 0)


def quarantine(world: World, kind: str, spot: Row, index: int) -> None:
    row = {"record": spot, "item_index": index, "source_table": f"silver.{kind}", "reason": "x", "detail": "x"}
    world.rows["silver.rejected"].append({**row, "value": spot["value"], "rejected_at": spot["received_at"]})


def place(world: World, topic: str, partition: int, value: str, head: Row) -> Row:
    record = {**head, "partition": partition, "value": value.encode()}
    world.records[topic].append(record)
    return record


def make_prices(world: World) -> None:
    """Twelve coins every 30 s; the last is refreshed every other poll, so its price is polled twice."""
    assets = [f"coin-{number:02d}" for number in range(12)]
    for poll in range(50):
        started = world.now - timedelta(minutes=25) + timedelta(seconds=30 * poll)
        page, received = [], started + timedelta(milliseconds=400)
        head = header(
            *(world, received, "coingecko", "markets"),
            **{"vs_currency": "usd", "http_status": 200, "poll_id": f"poll-{poll:03d}", "poll_started_at": started},
        )
        for rank, asset in enumerate(assets, start=1):
            version = poll // 2 * 2 if asset == assets[-1] else poll
            updated = world.now - timedelta(minutes=25) + timedelta(seconds=30 * version - 4 - rank)
            updated = updated.replace(microsecond=updated.microsecond // 1000 * 1000)
            price = Decimal(100 * rank) + Decimal(((version + 3) * (rank * 7 + 5)) % 29) / Decimal(16)
            page.append((asset, rank, version, updated, price))
        body = [coin(*entry) for entry in page]
        if poll == 10:
            body.append(coin("no-price", 99, poll, page[0][3], Decimal(1)) | {"current_price": None})
        spot = place(world, "prices", 0, json.dumps(body), head)
        if poll == 10:
            quarantine(world, "asset_prices", spot, len(assets))
        for index, (asset, rank, version, updated, price) in enumerate(page):
            if version == poll:
                accept_price(world, spot, index, asset, rank, updated, price)
    head = header(world, world.now - timedelta(minutes=20), "coingecko", "markets")
    place(world, "prices", 0, '{"status":{"error_code":429}}', head | {"http_status": 429, "vs_currency": "usd"})


def coin(asset: str, rank: int, version: int, updated: datetime, price: Decimal) -> Row:
    stamp = updated.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return {
        **{"id": asset, "symbol": asset[-2:], "name": asset.title(), "current_price": float(price)},
        **{"market_cap": 1_000_000_000 * (100 - rank), "market_cap_rank": rank, "total_volume": 5 * rank},
        **{"high_24h": 1.5, "low_24h": None, "price_change_percentage_24h": -0.95302, "last_updated": stamp},
    }


def accept_price(world: World, spot: Row, index: int, asset: str, rank: int, updated: datetime, price: Decimal) -> None:
    key = {"source": "coingecko", "asset_id": asset, "vs_currency": "usd", "last_updated": updated}
    cap = Decimal(1_000_000_000 * (100 - rank))
    world.truth_prices.append({**key, "price": price, "market_cap": cap})
    world.rows["silver.asset_prices"].append(
        {
            **key,
            **{"symbol": asset[-2:], "name": asset.title(), "price": price, "market_cap": cap, "market_cap_rank": rank},
            **{"volume_24h": Decimal(5 * rank), "high_24h": Decimal("1.5"), "change_24h_pct": Decimal("-0.95302")},
            **{"polled_at": spot["received_at"], "poll_id": spot["poll_id"], "origin": "simulated"},
            **{"poll_started_at": spot["poll_started_at"], "record": spot, "item_index": index},
        }
    )


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
    for table, short in ((silver.TRADES, "trades"), (silver.QUOTES, "ticker"), (silver.ASSET_PRICES, "prices")):
        marks: dict[str, dict[str, int]] = defaultdict(dict)
        for record in world.records[short]:
            part = marks[record["topic"]]
            part[str(record["partition"])] = max(record["offset"] + 1, part.get(str(record["partition"]), 0))
        append(world, table, world.rows[table.qualified], watermark=json.dumps(marks))
    world.rows["gold.bars"] = bars(world)
    world.rows["gold.price_metrics"] = price_metrics(world)
    world.rows["gold.top_movers"] = top_movers(world)
    for table, source in (
        (gold.BARS, "silver.trades"),
        (gold.PRICE_METRICS, "silver.asset_prices"),
        (gold.TOP_MOVERS, "silver.asset_prices"),
    ):
        assert table.hour_column
        hours = sorted({floor(row[table.hour_column], STEPS["1h"]) for row in world.rows[table.qualified]})
        append(
            *(world, table, world.rows[table.qualified]),
            silver_snapshot=str(world.snapshot(source)),
            complete_through=world.now.isoformat(),
            hours=json.dumps([hour.isoformat() for hour in hours]),
        )


def bars(world: World) -> list[Row]:
    """Every interval from a product's first trade to its last, by looking at every trade."""
    result = []
    for product in ("BTC-USD", "ETH-USD"):
        trades = [row for row in world.rows["silver.trades"] if row["product_id"] == product]
        trades.sort(key=lambda row: row["trade_id"])
        holes = [
            sorted((one["event_ts"], two["event_ts"]))
            for one, two in pairwise(trades)
            if two["trade_id"] != one["trade_id"] + 1
        ]
        for interval, step in STEPS.items():
            opened = floor(min(row["event_ts"] for row in trades), step)
            while opened <= max(row["event_ts"] for row in trades):
                inside = [row for row in trades if opened <= row["event_ts"] < opened + step]
                touched = any(first < opened + step and last >= opened for first, last in holes)
                result.append(bar(product, interval, opened, inside, touched, opened + step <= world.now))
                opened += step
    return result


def bar(product: str, interval: str, opened: datetime, inside: list[Row], touched: bool, complete: bool) -> Row:
    key = {"venue": "coinbase_exchange", "product_id": product, "interval": interval, "open_ts": opened}
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


def write_postgres(world: World) -> None:
    copies = {table.qualified: world.rows[table.qualified] for table in gold.GOLD_TABLES}
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
    tables = [f"bronze.{name}_raw" for name in ("trades", "ticker", "prices")]
    tables += ["silver.trades", "silver.quotes", "silver.asset_prices"]
    tables += ["gold.bars", "gold.price_metrics", "gold.top_movers"]
    connection.cursor().executemany(
        "insert into ops.layer_mark (table_name, complete_through, updated_at) values (%s, %s, now())",
        [(name, world.now) for name in tables],
    )
    connection.cursor().executemany(
        "insert into ops.publish_audit (table_name, last_snapshot_id, published_at, hours, row_count) "
        "values (%s, %s, now(), 1, 1)",
        [(table.qualified, world.snapshot(table.qualified)) for table in gold.GOLD_TABLES],
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
    for kind, short in (("trades", "trades"), ("quotes", "ticker"), ("asset_prices", "prices")):
        write_account(world, connection, kind, short)


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
