"""Faults to plant in the world of verify, one row each, and taken out again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tests.integration import verify_world
from tests.integration.verify_world import World


@contextmanager
def broken_bytes(world: World) -> Iterator[str]:
    """The page of the backfill tells another size of one trade; its key while it is so."""
    trade = next(t for t in world.truth_trades if t["trade_id"] == verify_world.BACKFILLED[3])
    told = f'"trade_id": {trade["trade_id"]}, "side": "{verify_world.SIDES[trade["taker_side"]]}", "size": "'
    name, before = world.name("bronze.trades_raw"), world.snapshot("bronze.trades_raw")
    value = f"cast(replace(cast(value as string), '{told}', '{told}9') as binary)"
    world.spark.sql(f"update {name} set value = {value} where origin = 'backfill'")
    try:
        yield f"coinbase_exchange BTC-USD {verify_world.BACKFILLED[3]}"
    finally:
        world.roll_back("bronze.trades_raw", before)


@dataclass(frozen=True)
class Target:
    """One row of one table: how to pick it, how to change it, and what verify must call it."""

    layer: str
    table: str
    where: str
    change: str
    product: str
    key: str


def lake_targets(world: World) -> list[Target]:
    """A row in each table of the lake; no two are about the same fact, so that each fault stands for itself."""
    spot = record_of(world, 5123)
    price = world.rows["silver.asset_prices"][300]
    bar = next(row for row in world.rows["gold.bars"] if row["product_id"] == "ETH-USD" and row["interval"] == "5m")
    metric = world.rows["gold.price_metrics"][321]
    candle = world.rows["silver.candles"][7]
    mover = world.rows["gold.top_movers"][33]
    feature = world.rows["gold.trade_features"][40]
    return [
        Target(
            *("bronze", "bronze.trades_raw", f"partition = {spot['partition']} and offset = {spot['offset']}"),
            'value = cast(replace(cast(value as string), \'"size": "0.\', \'"size": "7.\') as binary)',
            *("ETH-USD", "coinbase_exchange ETH-USD 5123"),
        ),
        Target(
            *("silver", "silver.trades", "product_id = 'ETH-USD' and trade_id = 5124", "taker_side = 'up'"),
            *("ETH-USD", "coinbase_exchange ETH-USD 5124"),
        ),
        Target(
            *("silver", "silver.quotes", "product_id = 'BTC-USD' and last_trade_id = 1077", "best_bid = best_bid - 1"),
            *("BTC-USD", "coinbase_exchange BTC-USD 90000847 null"),
        ),
        Target(
            *("silver", "silver.asset_prices", where(price, "asset_id", "last_updated"), "price = price + 0.01"),
            *("coingecko usd", f"coingecko {price['asset_id']} usd {verify_world.text(price['last_updated'])}"),
        ),
        Target(
            *("silver", "silver.candles", where(candle, "venue", "open_ts"), "volume = volume + 1"),
            *("BTC-USD", f"coinbase_exchange BTC-USD 1m {verify_world.text(candle['open_ts'])}"),
        ),
        Target(
            *("gold", "gold.bars", where(bar, "product_id", "interval", "open_ts"), "volume = volume + 0.00000001"),
            *("ETH-USD", f"coinbase_exchange ETH-USD 5m {verify_world.text(bar['open_ts'])}"),
        ),
        Target(
            *("gold", "gold.price_metrics", where(metric, "asset_id", "ts"), "ema_3m = ema_3m * 1.00000001"),
            *("coingecko usd", f"coingecko {metric['asset_id']} usd {verify_world.text(metric['ts'])}"),
        ),
        Target(
            *("gold", "gold.top_movers", where(mover, "snapshot_ts", "direction", "rank"), "asset_id = 'other'"),
            "coingecko usd",
            f"coingecko usd {verify_world.text(mover['snapshot_ts'])} {mover['direction']} {mover['rank']}",
        ),
        Target(
            *("gold", "gold.trade_features", where(feature, "product_id", "trade_id")),
            *("vwap_100 = vwap_100 * 1.00000001", "BTC-USD", f"coinbase_exchange BTC-USD {feature['trade_id']}"),
        ),
    ]


def record_of(world: World, trade_id: int) -> dict[str, Any]:
    return next(row for row in world.rows["silver.trades"] if row["trade_id"] == trade_id)["record"]


def where(row: dict[str, Any], *columns: str) -> str:
    def literal(value: Any) -> str:
        if isinstance(value, int):
            return str(value)
        return f"timestamp '{verify_world.text(value)}'" if hasattr(value, "year") else f"'{value}'"

    return " and ".join(f"{column} = {literal(row[column])}" for column in columns)


@contextmanager
def changed_lake(world: World, target: Target, fault: str) -> Iterator[None]:
    name, before = world.name(target.table), world.snapshot(target.table)
    statements = {
        "missing": f"delete from {name} where {target.where}",
        "duplicate": f"insert into {name} select * from {name} where {target.where}",
        "differing": f"update {name} set {target.change} where {target.where}",
    }
    world.spark.sql(statements[fault])
    try:
        assert world.snapshot(target.table) != before
        yield
    finally:
        world.roll_back(target.table, before)


def postgres_targets(world: World) -> list[Target]:
    by_table = {target.table: target for target in lake_targets(world)}
    observed = by_table["silver.asset_prices"]
    targets = [replace(observed, layer="live", table="live.asset_observation", change="volume_24h = volume_24h + 1")]
    for name in ("bars", "price_metrics", "top_movers", "trade_features"):
        targets.append(replace(by_table[f"gold.{name}"], layer="postgres"))
        if name in ("price_metrics", "top_movers"):
            targets.append(replace(by_table[f"gold.{name}"], layer="live", table=f"live.{name}"))
    return targets


@contextmanager
def changed_postgres(world: World, target: Target, fault: str) -> Iterator[None]:
    """The primary key is put aside: what it forbids is what a broken restore or a wrong migration would leave."""
    condition = target.where.replace("timestamp '", "timestamptz '").replace("rank =", '"rank" =')
    statements = {
        "missing": f"delete from {target.table} where {condition}",
        "duplicate": f"insert into {target.table} select * from {target.table} where {condition}",
        "differing": f"update {target.table} set {target.change} where {condition}",
    }
    aside = f"ops.aside_{target.table.replace('.', '_')}"
    with world.postgres() as connection:
        connection.execute(f"create table {aside} as table {target.table}")
        key = connection.execute(
            "select conname, pg_get_constraintdef(oid) from pg_constraint "
            "where conrelid = %s::regclass and contype = 'p'",
            (target.table,),
        ).fetchone()
        assert key
        connection.execute(f'alter table {target.table} drop constraint "{key[0]}"')
        try:
            assert connection.execute(statements[fault]).rowcount == 1
            yield
        finally:
            connection.execute(f"truncate {target.table}")
            connection.execute(f"insert into {target.table} table {aside}")
            connection.execute(f'alter table {target.table} add constraint "{key[0]}" {key[1]}')
            connection.execute(f"drop table {aside}")


@contextmanager
def changed_ops(world: World, change: str, undo: str) -> Iterator[None]:
    with world.postgres() as connection:
        connection.execute(change)
        try:
            yield
        finally:
            connection.execute(undo)
