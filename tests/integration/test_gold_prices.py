"""gold.price_metrics and gold.top_movers as pure functions of silver.asset_prices, judged by plain Python."""

from __future__ import annotations

import math
import random
import statistics
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from gold_lake import append, at, complete, fresh, observation, stored
from pyspark.sql import SparkSession

from marketflow.contracts.gold import PRICE_METRICS, TOP_MOVERS
from marketflow.contracts.silver import ASSET_PRICES
from marketflow.lake import gold
from marketflow.settings import Settings

Row = dict[str, Any]
ASSETS = ("bitcoin", "ethereum", "solana", "dogecoin", "cardano", "litecoin", "chainlink", "polkadot", "toncoin", "sui",
          "stellar", "monero")  # fmt: skip


@pytest.fixture
def lake_now(embedded: Settings, lake: SparkSession) -> tuple[SparkSession, Settings]:
    """Empty silver and gold."""
    fresh(lake, embedded)
    return lake, embedded


def polls(start: datetime, end: datetime, *, seed: int, every_s: int = 60) -> list[Row]:
    """A poll every `every_s`; most assets have a price that is seconds old, some bring none."""
    chance = random.Random(seed)
    rows, poll = [], start
    while poll < end:
        for asset in ASSETS:
            if chance.random() < 0.9:
                when = poll - timedelta(seconds=chance.randint(1, every_s - 5), microseconds=chance.randint(0, 999_999))
                rows.append(observation(asset, when, f"{chance.randint(9000, 11000) / 100:.2f}", poll))
        poll += timedelta(seconds=every_s)
    return rows


def metrics_oracle(rows: list[Row]) -> dict[tuple[str, datetime], Row]:
    """Measures of each observation by definition, keyed by asset and time."""
    found = {}
    for asset in {row["asset_id"] for row in rows}:
        own = sorted((row for row in rows if row["asset_id"] == asset), key=lambda row: row["last_updated"])
        for row in own:
            found[asset, row["last_updated"]] = measures(own, row["last_updated"], float(row["price"]))
    return found


def measures(own: list[Row], now: datetime, price: float) -> Row:
    """One row's measures."""
    ages = [
        ((now - row["last_updated"]).total_seconds(), float(row["price"])) for row in own if row["last_updated"] <= now
    ]
    window = [p for age, p in ages if age < 300]
    weights = [(2 ** (-age / 61.8), p) for age, p in ages if age < 1236]

    def change(seconds: int) -> float | None:
        earlier = [(age, p) for age, p in ages if seconds <= age <= seconds + 90]
        return 100 * (price / min(earlier)[1] - 1) if earlier else None

    return {
        "change_1min": change(60),
        "change_5min": change(300),
        "sma_5m": statistics.fmean(window),
        "ema_3m": sum(w * p for w, p in weights) / sum(w for w, _ in weights),
        "volatility_5m": statistics.stdev(window) if len(window) > 1 else None,
        "realized_volatility_5m": math.sqrt(sum(math.log(b / a) ** 2 for a, b in pairwise(window)))
        if len(window) > 1
        else None,
        "observations_5m": len(window),
    }


def movers_oracle(rows: list[Row]) -> list[tuple[datetime, str, int, str]]:
    """(snapshot, direction, rank, asset) of every poll."""
    metrics = metrics_oracle(rows)
    places = []
    for poll in {row["poll_started_at"] for row in rows}:
        latest: dict[str, Row] = {}
        for row in sorted((r for r in rows if r["poll_started_at"] <= poll), key=lambda r: r["last_updated"]):
            latest[row["asset_id"]] = row
        candidates = [
            (metrics[asset, row["last_updated"]]["change_5min"], row["market_cap_rank"], asset)
            for asset, row in latest.items()
            if poll - row["last_updated"] < timedelta(minutes=5)
            and metrics[asset, row["last_updated"]]["change_5min"] is not None
        ]
        gainers = sorted(candidates, key=lambda c: (-c[0], c[1], c[2]))[:5]
        losers = sorted(set(candidates) - set(gainers))[:5]
        for direction, ranked in (("gainer", gainers), ("loser", losers)):
            places += [(poll, direction, rank, asset) for rank, (_, _, asset) in enumerate(ranked, 1)]
    return sorted(places)


def check(spark: SparkSession, settings: Settings, rows: list[Row]) -> None:
    """Both tables equal their oracles."""
    expected = metrics_oracle(rows)
    found = {(row["asset_id"], row["ts"]): row for row in stored(spark, settings, PRICE_METRICS)}
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        assert {name: found[key][name] for name in wanted} == pytest.approx(wanted, rel=1e-9, abs=1e-9), key
    movers = stored(spark, settings, TOP_MOVERS)
    assert sorted((m["snapshot_ts"], m["direction"], m["rank"], m["asset_id"]) for m in movers) == movers_oracle(rows)


def test_metrics_and_movers_equal_the_oracles_through_every_kind_of_change(
    lake_now: tuple[SparkSession, Settings],
) -> None:
    spark, settings = lake_now
    rows: list[Row] = []

    def arrive(more: list[Row], *, metrics: list[int], movers: list[int]) -> None:
        rows.extend(more)
        append(spark, settings, ASSET_PRICES, more)
        for table, hours in ((PRICE_METRICS, metrics), (TOP_MOVERS, movers)):
            assert [hour.hour for hour in gold.dirty_hours(spark, settings, table)] == hours
            gold.rewrite_dirty(spark, settings, table)
            assert gold.dirty_hours(spark, settings, table) == []
        check(spark, settings, rows)

    complete(settings, ASSET_PRICES, at("10:20"))
    arrive(polls(at("8:50"), at("10:10"), seed=1), metrics=[8, 9, 10], movers=[8, 9, 10])
    # the open hour goes on; its first poll after the border also brought prices of the hour before
    arrive(polls(at("10:10"), at("10:40"), seed=2), metrics=[10], movers=[10])
    # a price made at 9:58 and told at 10:41 changes measures and rankings of the next hour
    arrive([observation("tezos", at("9:58"), "3", at("10:41"))], metrics=[9, 10], movers=[9, 10])
    # a price that was hours old when it was first told: its row is in 8:00, its snapshot in 10:00
    arrive([observation("iota", at("8:05"), "2", at("10:42"))], metrics=[8, 9], movers=[8, 9, 10])
    # three hours without a run
    arrive(polls(at("12:30"), at("13:20"), seed=3), metrics=[12, 13], movers=[12, 13])


def test_hours_rewritten_one_by_one_equal_those_written_at_once(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    append(spark, settings, ASSET_PRICES, polls(at("8:50"), at("11:10"), seed=4))
    for table in (PRICE_METRICS, TOP_MOVERS):
        gold.rewrite_dirty(spark, settings, table)
        at_once = stored(spark, settings, table)
        for hour in ("10:00", "8:00", "11:00", "9:00"):
            gold.backfill_hours(spark, settings, table, [at(hour)])
        assert stored(spark, settings, table) == at_once  # to the last bit


def test_silver_that_moved_without_a_row_moves_the_mark_and_no_row(lake_now: tuple[SparkSession, Settings]) -> None:
    spark, settings = lake_now
    append(spark, settings, ASSET_PRICES, polls(at("8:50"), at("9:10"), seed=5))
    first = gold.rewrite_dirty(spark, settings, PRICE_METRICS)
    before = stored(spark, settings, PRICE_METRICS)
    append(spark, settings, ASSET_PRICES, [])
    second = gold.rewrite_dirty(spark, settings, PRICE_METRICS)
    assert (second.hours, second.rows) == ((), 0)
    assert second.silver_snapshot != first.silver_snapshot
    assert stored(spark, settings, PRICE_METRICS) == before
    assert gold.rewrite_dirty(spark, settings, PRICE_METRICS).snapshot_id is None
