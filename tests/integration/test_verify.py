"""verify calls a consistent world clean, and names layer, product and key of every single fault, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from marketflow import verify
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack import kafka, postgres
from marketflow.verify import Report
from marketflow.warehouse import schema
from tests.integration import verify_world
from tests.integration.verify_world import World


@pytest.fixture(scope="module")
def world(embedded: Settings, lake: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """In a dataset of its own, so that no other test's rows are in it."""
    settings = embedded.model_copy(update={"dataset": "live"})
    postgres.bootstrap(settings)
    kafka.create_topics(settings)
    schema.apply(settings)
    apply_contracts(lake, settings)
    return verify_world.build(settings, lake, tmp_path_factory.mktemp("truth"))


def judged(world: World, **arguments: Any) -> Report:
    return verify.run(world.settings, truth_folder=world.truth_folder, output=lambda line: None, **arguments)


def found(report: Report) -> list[tuple[str, str, str, str]]:
    return [(one.layer, one.table, one.product, one.kind) for one in report.problems]


def test_a_consistent_world_is_clean_and_everything_in_it_was_compared(world: World) -> None:
    report = judged(world)
    assert "\n".join(report.lines()).endswith(f"clean ({report.seconds:.1f} s)"), "\n".join(report.lines())
    assert report.cut == world.now - timedelta(seconds=5)
    compared: dict[str, int] = {}
    for one in report.comparisons:
        compared[f"{one.layer} {one.table}"] = compared.get(f"{one.layer} {one.table}", 0) + one.compared
    received = len(world.rows["silver.trades"])
    assert compared["bronze bronze.trades_raw"] == received + len(world.records["trades"])
    for qualified, rows in world.rows.items():
        assert compared[f"{qualified.split('.')[0]} {qualified}"] == len(rows), qualified
    assert compared["postgres gold.bars"] == len(world.rows["gold.bars"])
    assert compared["live live.asset_observation"] == len(world.rows["silver.asset_prices"])
    assert compared["live live.price_metrics"] == len(world.rows["gold.price_metrics"])
    assert compared["live live.top_movers"] == len(world.rows["gold.top_movers"]) > 0


def test_ids_in_an_open_hole_are_known_gaps_and_not_missing(world: World) -> None:
    gaps = {(one.table, one.product): one.known_gap for one in judged(world, layers=("bronze",)).comparisons}
    assert gaps["bronze.trades_raw", "BTC-USD"] == len(verify_world.LOST)
    assert gaps["bronze.trades_raw", "ETH-USD"] == 0


@dataclass(frozen=True)
class Target:
    """One row of one table: how to pick it, how to change it, and what verify must call it."""

    layer: str
    table: str
    where: str
    change: str
    product: str
    key: str


def lake_targets(world: World) -> dict[str, Target]:
    trade = next(row for row in world.rows["silver.trades"] if row["trade_id"] == 5123)
    price = world.rows["silver.asset_prices"][300]
    bar = next(row for row in world.rows["gold.bars"] if row["product_id"] == "ETH-USD" and row["interval"] == "5m")
    metric = world.rows["gold.price_metrics"][321]
    mover = world.rows["gold.top_movers"][33]
    record = trade["record"]
    place = f"partition = {record['partition']} and offset = {record['offset']}"
    return {
        "bronze": Target(
            *("bronze", "bronze.trades_raw", place),
            'value = cast(replace(cast(value as string), \'"size": "0.\', \'"size": "7.\') as binary)',
            *("ETH-USD", "coinbase_exchange ETH-USD 5123"),
        ),
        "trades": Target(
            *("silver", "silver.trades", "product_id = 'ETH-USD' and trade_id = 5123", "taker_side = 'up'"),
            *("ETH-USD", "coinbase_exchange ETH-USD 5123"),
        ),
        "asset_prices": Target(
            *("silver", "silver.asset_prices", where(price, "asset_id", "last_updated"), "price = price + 0.01"),
            *("coingecko usd", f"coingecko {price['asset_id']} usd {verify_world.text(price['last_updated'])}"),
        ),
        "bars": Target(
            *("gold", "gold.bars", where(bar, "product_id", "interval", "open_ts"), "volume = volume + 0.00000001"),
            *("ETH-USD", f"coinbase_exchange ETH-USD 5m {verify_world.text(bar['open_ts'])}"),
        ),
        "price_metrics": Target(
            *("gold", "gold.price_metrics", where(metric, "asset_id", "ts"), "ema_3m = ema_3m * 1.00000001"),
            *("coingecko usd", f"coingecko {metric['asset_id']} usd {verify_world.text(metric['ts'])}"),
        ),
        "top_movers": Target(
            *("gold", "gold.top_movers", where(mover, "snapshot_ts", "direction", "rank"), "asset_id = 'other'"),
            "coingecko usd",
            f"coingecko usd {verify_world.text(mover['snapshot_ts'])} {mover['direction']} {mover['rank']}",
        ),
    }


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


@pytest.mark.parametrize("fault", ["missing", "duplicate", "differing"])
@pytest.mark.parametrize("table", ["bronze", "trades", "asset_prices", "bars", "price_metrics", "top_movers"])
def test_one_wrong_row_in_the_lake_is_named_and_nothing_else(world: World, table: str, fault: str) -> None:
    target = lake_targets(world)[table]
    with changed_lake(world, target, fault):
        report = judged(world)
    expected = [(target.layer, target.table, target.product, fault)]
    if table == "bronze" and fault != "differing":
        # a record is missing or double by its offset; a trade that no record tells any more is missing besides
        spot = next(row for row in world.rows["silver.trades"] if row["trade_id"] == 5123)["record"]
        by_offset = (target.layer, target.table, f"partition {spot['partition']}", fault)
        expected = [by_offset, *expected] if fault == "missing" else [by_offset]
        assert str(spot["offset"]) in report.problems[0].examples[0]
    else:
        assert report.problems[0].examples[0].startswith(target.key)
    assert found(report) == expected
    assert all(one.count == 1 for one in report.problems)


def postgres_targets(world: World) -> dict[str, Target]:
    by_table = lake_targets(world)
    observed = Target(
        *("live", "live.asset_observation", by_table["asset_prices"].where, "volume_24h = volume_24h + 1"),
        *(by_table["asset_prices"].product, by_table["asset_prices"].key),
    )
    found = {"observations": observed}
    for name in ("bars", "price_metrics", "top_movers"):
        one = by_table[name]
        found[f"gold {name}"] = Target("postgres", one.table, one.where, one.change, one.product, one.key)
        if name != "bars":
            found[f"live {name}"] = Target("live", f"live.{name}", one.where, one.change, one.product, one.key)
    return found


@contextmanager
def changed_postgres(world: World, target: Target, fault: str) -> Iterator[None]:
    """The primary key is put aside: what it forbids is what a broken restore or a wrong migration would leave."""
    condition = target.where.replace("timestamp '", "timestamptz '").replace("rank =", '"rank" =')
    statements = {
        "missing": f"delete from {target.table} where {condition}",
        "duplicate": f"insert into {target.table} select * from {target.table} where {condition}",
        "differing": f"update {target.table} set {target.change} where {condition}",
    }
    with world.postgres() as connection:
        connection.execute(f"create table public.aside as table {target.table}")
        key = connection.execute(
            "select conname, pg_get_constraintdef(oid) from pg_constraint "
            "where conrelid = %s::regclass and contype = 'p'",
            (target.table,),
        ).fetchone()
        connection.execute(f'alter table {target.table} drop constraint "{key[0]}"')
        try:
            assert connection.execute(statements[fault]).rowcount == 1
            yield
        finally:
            connection.execute(f"truncate {target.table}")
            connection.execute(f"insert into {target.table} table public.aside")
            connection.execute(f'alter table {target.table} add constraint "{key[0]}" {key[1]}')
            connection.execute("drop table public.aside")


@pytest.mark.parametrize("fault", ["missing", "duplicate", "differing"])
@pytest.mark.parametrize(
    "table",
    ["gold bars", "gold price_metrics", "gold top_movers", "observations", "live price_metrics", "live top_movers"],
)
def test_one_wrong_row_in_postgres_is_named_and_nothing_else(world: World, table: str, fault: str) -> None:
    target = postgres_targets(world)[table]
    with changed_postgres(world, target, fault):
        report = judged(world)
    assert found(report) == [(target.layer, target.table, target.product, fault)]
    assert report.problems[0].count == 1
    assert report.problems[0].examples[0].startswith(target.key)
