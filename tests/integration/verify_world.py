"""A small consistent world, written into every store by this file's own simple code: what `verify` must call clean.

Two products traded for seventy minutes with one hole of five ids, a heal, duplicates and broken messages, one of them
often enough for rows of features; twelve coins polled for twenty-five minutes; candles of an hour in pages that
overlap. Nothing here is imported from what verify judges or from verify itself but the tables' contracts (to make rows
of the right width), the kernel of the features (of which verify has an oracle) and the writers' transport: Spark,
psycopg, confluent-kafka.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import psycopg
from pyspark.sql import SparkSession

from marketflow.settings import Settings

Row = dict[str, Any]
PLACES = Decimal(1).scaleb(-18)
WIDE = Context(prec=120, rounding=ROUND_HALF_EVEN)
SIDES = {"buy": "sell", "sell": "buy"}
STEPS = {"1m": timedelta(minutes=1), "5m": timedelta(minutes=5), "15m": timedelta(minutes=15)}
STEPS |= {"1h": timedelta(hours=1), "1d": timedelta(days=1)}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOST = range(1201, 1206)  # BTC-USD ids that nobody received: an open hole
HEALED = range(1301, 1304)  # BTC-USD ids that came by a REST page
BACKFILLED = range(700, 710)  # BTC-USD ids that were asked for of the time before the feed's first, 1000


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
            # every other trade comes late, so that its quote is too old, and the next one soon after
            late = timedelta(seconds=3 * (number % 2), microseconds=number * 137 % 1000)
            made = begin + timedelta(seconds=number * step_s) + late + pause
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
    say_polls(world)
    say_backfill(world)


def say_polls(world: World) -> None:
    """SOL-USD as a library polled it: floats, ids that jump, each answer with the last trade of the one before."""
    begin = world.now.replace(microsecond=0) - timedelta(minutes=40)
    told = [(begin + timedelta(seconds=20 * number), 7_000 + 31 * number, 140.5 + number / 8) for number in range(60)]
    for first in range(0, len(told), 3):
        received = told[first + 2][0] + timedelta(seconds=3)
        page = [polled(*each) for each in told[max(first - 1, 0) : first + 3]]
        if first == 30:
            page.append(page[0] | {"id": "b2c4-11"})
        head = header(world, received, "ccxt_kraken", "fetch_trades", product_id="SOL-USD", poll_id=f"c{first}")
        spot = place(world, "trades", 3, json.dumps(page), head | {"poll_started_at": received})
        if first == 30:
            quarantine(world, "trades", spot, len(page) - 1)
        for made, trade_id, price in told[first : first + 3]:
            trade = {"venue": "ccxt_kraken", "product_id": "SOL-USD", "trade_id": trade_id, "event_ts": made}
            side = "buy" if trade_id % 2 else "sell"
            trade |= {"price": Decimal(repr(price)), "size": Decimal("0.1"), "taker_side": side, "sequence": None}
            index = next(at for at, each in enumerate(page) if each["id"] == str(trade_id))
            accept_trade(world, trade, spot, index, side_raw=side, float_born=True)


def polled(made: datetime, trade_id: int, price: float) -> Row:
    return {
        **{"id": str(trade_id), "timestamp": us(made) // 1000, "datetime": text(made), "symbol": "SOL/USD"},
        **{"side": "buy" if trade_id % 2 else "sell", "takerOrMaker": None, "price": price, "amount": 0.1},
        **{"cost": price * 0.1, "info": [repr(price)]},
    }


def say_trade(world: World, received: datetime, partition: int, trade: Row) -> None:
    if trade["product_id"] == "BTC-USD" and trade["trade_id"] in (*LOST, *HEALED):
        if trade["trade_id"] == HEALED[-1]:
            say_heal(world, received + timedelta(seconds=30), partition)
        return
    message = match(trade)
    head = header(world, received, "coinbase_exchange", "matches")
    value = json.dumps(message)
    if trade["trade_id"] % 70 == 0:  # a name that occurs twice: the last value counts
        value = '{"trade_id": 7, ' + value[1:]
    accept_trade(world, trade, place(world, "trades", partition, value, head), 0)
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


def say_backfill(world: World) -> None:
    """Trades from before the feed's first, some of which were asked for afterwards; nobody listened to the others."""
    old = [
        world.truth_trades[0]
        | {"trade_id": number, "event_ts": world.now - timedelta(minutes=100) + (number - 690) * timedelta(seconds=5)}
        for number in range(690, 1000)
    ]
    world.truth_trades += old
    page = [t for t in reversed(old) if t["trade_id"] in BACKFILLED]
    told = [{k: v for k, v in match(t).items() if k in ("time", "trade_id", "price", "size", "side")} for t in page]
    head = header(
        *(world, world.now - timedelta(minutes=40), "coinbase_exchange", "trades"),
        **{"product_id": "BTC-USD", "http_status": 200, "origin": "backfill"},
    )
    spot = place(world, "trades", 1, json.dumps(told), head)
    for index, trade in enumerate(page):
        accept_trade(world, trade | {"sequence": None}, spot, index)


def accept_trade(world: World, trade: Row, spot: Row, index: int, **other: Any) -> None:
    notional = WIDE.multiply(trade["price"], trade["size"]).quantize(PLACES, context=WIDE)
    more = {"notional": notional, "side_raw": SIDES[trade["taker_side"]], "record": spot, "item_index": index}
    arrived = {"received_at": spot["received_at"], "origin": spot["origin"]}
    world.rows["silver.trades"].append({**trade, **more, **arrived, **other})


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


def make_candles(world: World) -> None:
    """Two pages of one venue that share ten candles, one of them told otherwise the second time; a page of another."""
    begin = floor(world.now - timedelta(minutes=60), STEPS["1m"])
    exchange = {"product_id": "BTC-USD", "interval": "1m", "http_status": 200, "origin": "backfill"}
    for late, numbers in enumerate((range(30), range(20, 50))):
        received = world.now - timedelta(minutes=5 - late)
        head = header(world, received, "coinbase_exchange", "candles", **exchange)
        shown = [candle(begin, number) for number in reversed(numbers)]
        body = [[us(c["open_ts"]) // 1_000_000, *(c[name] for name in _ARRAY)] for c in shown]
        if late:
            body[-1][5] += 1  # of minute 20, which is known
            body.append([us(begin) // 1_000_000, 5, 4, 4, 4, 1])  # low above high
        spot = place(world, "candles", 0, json.dumps(body, default=float), head)
        if late:
            quarantine(world, "candles", spot, len(shown) - 1)
            quarantine(world, "candles", spot, len(shown))
        for index, one in enumerate(shown):
            if not late or one["open_ts"] >= begin + timedelta(minutes=30):
                accept_candle(world, one, spot, index, {})
    say_klines(world, begin)


_ARRAY = ("low", "high", "open", "close", "volume")


def candle(begin: datetime, number: int) -> Row:
    middle = Decimal(60000) + Decimal(number * 37 % 101) / 8
    return {
        **{"open_ts": begin + number * STEPS["1m"], "open": middle, "close": middle + Decimal("0.25")},
        **{"high": middle + 1, "low": middle - 1, "volume": Decimal(number % 7) / 4},
    }


def say_klines(world: World, begin: datetime) -> None:
    """Binance's candles, the newest of which is not over; and a page without any."""
    received = begin + timedelta(minutes=30, seconds=20)
    more = {"product_id": "BTC-USDT", "interval": "1m", "http_status": 200, "origin": "backfill"}
    head = header(world, received, "binance", "klines", **more)
    shown = [candle(begin, number) for number in range(25, 31)]
    body = []
    for one in shown:
        opened = us(one["open_ts"]) // 1_000
        prices = [str(one[name]) for name in ("open", "high", "low", "close", "volume")]
        body.append([opened, *prices, opened + 59_999, "1234.5", 9, "1", "2", "0"])
    spot = place(world, "candles", 0, json.dumps(body), head)
    for index, one in enumerate(shown[:-1]):
        accept_candle(world, one, spot, index, {"notional": Decimal("1234.5"), "trade_count": 9})
    quarantine(world, "candles", spot, len(shown) - 1)
    place(world, "candles", 0, "[]", head)


def accept_candle(world: World, one: Row, spot: Row, index: int, totals: Row) -> None:
    said = {name: spot[name] for name in ("venue", "product_id", "interval", "received_at", "origin")}
    world.rows["silver.candles"].append({**one, **said, **totals, "record": spot, "item_index": index})
