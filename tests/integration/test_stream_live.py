"""Live rows equal an oracle that knows all observations at once, however they were cut into batches."""

from __future__ import annotations

import json
import math
import random
import threading
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from pyspark.sql import SparkSession

from marketflow.lake import live
from marketflow.settings import Settings
from marketflow.stack import kafka, postgres
from marketflow.warehouse import live as live_tables
from marketflow.warehouse import schema
from marketflow.warehouse.connection import connect
from tests.stream_stage import producer

START = datetime(2026, 7, 7, 12, 0, tzinfo=UTC)
PRICES = "live.crypto.prices.raw"


@pytest.fixture
def own(embedded: Settings) -> Settings:
    """A database and topics that no other test writes to, empty."""
    settings = embedded.model_copy(update={"dataset": "live"})
    postgres.bootstrap(settings)
    schema.apply(settings)
    with connect(settings) as connection:
        connection.execute("truncate live.asset_observation, live.price_metrics, live.top_movers, live.batch")
    return settings


def micros(at: datetime) -> str:
    return str((at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))


def page(poll: int, prices: dict[str, tuple[float, datetime]], **changed: str | None) -> dict[str, Any]:
    """One page as bronze has it: JSON text of the headers, and bytes."""
    started = START + timedelta(seconds=30 * poll)
    headers: dict[str, str | None] = {
        "venue": "coingecko",
        "http_status": "200",
        "vs_currency": "usd",
        "origin": "simulated",
        "poll_id": f"poll-{poll:03}",
        "poll_started_at": micros(started),
        "received_at": micros(started + timedelta(milliseconds=400)),
    }
    coins = [
        {
            "id": asset,
            "symbol": asset[:3],
            "name": asset.title(),
            "current_price": price,
            "market_cap_rank": rank,
            "last_updated": updated.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        for rank, (asset, (price, updated)) in enumerate(prices.items(), 1)
    ]
    return {"headers": json.dumps(headers | changed), "value": json.dumps(coins).encode()}


def market(polls: int, assets: int, seed: int) -> list[dict[str, Any]]:
    """A walk of `assets` prices: some polls repeat the last price, some assets fall silent for minutes."""
    chance = random.Random(seed)
    prices = {f"asset-{index:02}": (100.0 + index, START - timedelta(seconds=5)) for index in range(assets)}
    pages = []
    for poll in range(polls):
        for asset, (price, _) in prices.items():
            if chance.random() < 0.8 and not (asset == "asset-00" and 5 < poll < 20):
                updated = START + timedelta(
                    seconds=30 * poll - chance.randint(1, 20), microseconds=chance.randint(0, 9)
                )
                prices[asset] = (round(price * (1 + chance.uniform(-0.01, 0.01)), 6), updated)
        pages.append(page(poll, prices))
    return pages


def write(settings: Settings, batch_id: int, pages: list[dict[str, Any]]) -> live_tables.Written:
    return live.write(settings, "live_prices/test", batch_id, live.observations(pages))


def rows(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    with connect(settings) as connection:
        return connection.execute(statement).fetchall()


def everything(settings: Settings) -> list[list[tuple[Any, ...]]]:
    return [
        rows(settings, "select * from live.asset_observation order by 1, 2, 3, 4"),
        rows(settings, "select * from live.price_metrics order by 1, 2, 3, 4"),
        rows(settings, "select * from live.top_movers order by 1, 2, 3, 5, 6"),
    ]


Seen = dict[str, dict[datetime, tuple[float, datetime, int]]]


def seen_in(pages: list[dict[str, Any]]) -> Seen:
    """asset → last_updated → (price, poll_started_at, rank), the first page that shows it wins."""
    seen: Seen = defaultdict(dict)
    for one in pages:
        started = datetime.fromtimestamp(0, UTC) + timedelta(
            microseconds=int(json.loads(one["headers"])["poll_started_at"])
        )
        for coin in json.loads(one["value"]):
            at = datetime.fromisoformat(coin["last_updated"])
            seen[coin["id"]].setdefault(at, (coin["current_price"], started, coin["market_cap_rank"]))
    return seen


def change(series: dict[datetime, tuple[float, datetime, int]], at: datetime, age_s: int) -> float | None:
    earlier = [s for s in series if at - timedelta(seconds=age_s + 90) <= s <= at - timedelta(seconds=age_s)]
    return 100 * (series[at][0] / series[max(earlier)][0] - 1) if earlier else None


def expected_metrics(seen: Seen) -> dict[tuple[str, datetime], tuple[float | None, ...]]:
    found = {}
    for asset, series in seen.items():
        for at in series:
            window = [series[s][0] for s in series if at - timedelta(seconds=300) < s <= at]
            weights = [
                (0.5 ** ((at - s).total_seconds() / 61.8), series[s][0])
                for s in series
                if at - timedelta(seconds=1236) < s <= at
            ]
            mean = sum(window) / len(window)
            deviation = math.sqrt(sum((p - mean) ** 2 for p in window) / (len(window) - 1)) if len(window) > 1 else None
            ema = sum(w * p for w, p in weights) / sum(w for w, _ in weights)
            found[asset, at] = (change(series, at, 60), change(series, at, 300), mean, ema, deviation, len(window))
    return found


def expected_movers(seen: Seen) -> list[tuple[datetime, str, int, str]]:
    polls = {started for series in seen.values() for _, started, _ in series.values()}
    found = []
    for poll in sorted(polls):
        ranked = []
        for asset, series in seen.items():
            known = [at for at, (_, started, _) in series.items() if started <= poll]
            if known and poll - max(known) < timedelta(seconds=300):
                moved = change(series, max(known), 300)
                if moved is not None:
                    ranked.append((moved, series[max(known)][2], asset))
        gainers = sorted(ranked, key=lambda place: (-place[0], place[1], place[2]))[:5]
        losers = sorted(set(ranked) - set(gainers), key=lambda place: (place[0], place[1], place[2]))[:5]
        found += [(poll, "gainer", rank, asset) for rank, (_, _, asset) in enumerate(gainers, 1)]
        found += [(poll, "loser", rank, asset) for rank, (_, _, asset) in enumerate(losers, 1)]
    return found


def assert_equals_oracle(settings: Settings, pages: list[dict[str, Any]]) -> None:
    seen = seen_in(pages)
    metrics = {
        (asset, at): tuple(values)
        for asset, at, *values in rows(
            settings,
            "select asset_id, ts, change_1min, change_5min, sma_5m, ema_3m, volatility_5m, observations_5m "
            "from live.price_metrics",
        )
    }
    expected = expected_metrics(seen)
    assert metrics.keys() == expected.keys()
    for key, values in expected.items():
        assert metrics[key] == pytest.approx(values, rel=1e-9, abs=1e-9), key
    movers = rows(settings, "select snapshot_ts, direction, rank, asset_id from live.top_movers order by 1, 2, 3")
    assert movers == expected_movers(seen)
    assert len(movers) > 100


@pytest.mark.parametrize("pages_per_batch", [1, 7])
def test_live_rows_equal_the_oracle_for_any_cut_into_batches(own: Settings, pages_per_batch: int) -> None:
    pages = market(polls=45, assets=14, seed=pages_per_batch)
    for batch_id, first in enumerate(range(0, len(pages), pages_per_batch)):
        write(own, batch_id, pages[first : first + pages_per_batch])
    assert_equals_oracle(own, pages)


def test_observations_that_come_late_change_every_row_they_reach(own: Settings) -> None:
    pages = market(polls=45, assets=14, seed=3)
    late = [20, 21, 33]
    in_time = [one for number, one in enumerate(pages) if number not in late]
    for batch_id, one in enumerate([*in_time, *(pages[number] for number in late)]):
        write(own, batch_id, [one])
    assert_equals_oracle(own, [*in_time, *(pages[number] for number in late)])


def test_a_batch_that_comes_twice_changes_nothing(own: Settings) -> None:
    pages = market(polls=20, assets=8, seed=4)
    write(own, 0, pages[:10])
    assert write(own, 1, pages[10:]).observations > 0
    before = everything(own)
    assert write(own, 1, pages[10:]) == live_tables.Written(repeated=True)
    assert write(own, 0, pages[:10]) == live_tables.Written(repeated=True)
    assert everything(own) == before


def test_a_new_checkpoint_reads_the_topic_again_and_changes_no_value(own: Settings) -> None:
    pages = market(polls=20, assets=8, seed=5)
    write(own, 7, pages)
    before = everything(own)
    written = live.write(own, "live_prices/another", 0, live.observations(pages))
    assert (written.observations, written.repeated) == (0, False)
    assert everything(own) == before


def test_what_gives_no_observation_is_passed_over(own: Settings) -> None:
    good = page(0, {"bitcoin": (63_000.5, START - timedelta(seconds=3))})
    broken = [
        page(1, {}, http_status="429"),
        page(1, {}, poll_id=None),
        page(1, {"bitcoin": (1.0, START)}, poll_started_at="soon"),
        page(1, {"bitcoin": (1.0, START)}, origin="elsewhere"),
        page(1, {"bitcoin": (-1.0, START)}),
        {"headers": None, "value": None},
        good | {"value": b'{"error": "too many"}'},
        good | {"value": b"\xff[{"},
    ]
    assert write(own, 0, [*broken, good, *broken]).observations == 1
    assert rows(own, "select asset_id, price::text from live.price_metrics") == [
        ("bitcoin", "63000.500000000000000000")
    ]


def test_an_asset_not_updated_for_days_costs_only_its_own_row(own: Settings) -> None:
    pages = market(polls=20, assets=6, seed=6)
    write(own, 0, pages)
    before = everything(own)
    stale = page(19, {"forgotten": (1.0, START - timedelta(days=9))})
    assert write(own, 1, [stale]).price_metrics == 1
    after = everything(own)
    assert [row for row in after[1] if row[1] != "forgotten"] == before[1]
    assert after[2] == before[2]


def test_rows_older_than_the_days_that_are_kept_go(own: Settings) -> None:
    old, new = START - timedelta(days=40), START
    write(own, 0, market(polls=12, assets=6, seed=7))
    for table, column in (("asset_observation", "last_updated"), ("price_metrics", "ts")):
        rows(own, f"update live.{table} set {column} = '{old}' where asset_id = 'asset-01' and {column} = "
             f"(select min({column}) from live.{table} where asset_id = 'asset-01') returning 1")  # fmt: skip
    assert live.delete_old(own) == 2
    assert rows(own, "select count(*) from live.asset_observation where last_updated < '2026-07-01'") == [(0,)]
    assert rows(own, "select count(*) from live.price_metrics where ts >= '2026-07-01'")[0][0] > 20
    assert write(own, 1, [page(30, {"asset-09": (2.0, old), "asset-08": (2.0, new)})]).observations == 1


def test_a_batch_is_written_when_postgres_comes_back(own: Settings) -> None:
    pages = market(polls=12, assets=6, seed=8)
    with connect(own, autocommit=True) as blocker:
        # the batch waits for this lock; its session is ended while it waits, and the batch begins again
        blocker.execute("begin; lock table live.asset_observation in exclusive mode")
        writing = threading.Thread(target=write, args=(own, 0, pages))
        writing.start()
        ended = 0
        while not ended:
            with psycopg.connect(own.dsn("postgres"), autocommit=True) as server:
                ended = server.execute(
                    "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity "
                    "where wait_event_type = 'Lock' and query like 'insert into live.asset_observation%'"
                ).fetchone()[0]  # type: ignore[index]
        blocker.execute("commit")
    writing.join(60)
    stored = rows(own, "select count(*) from live.asset_observation")
    assert stored[0][0] == sum(len(series) for series in seen_in(pages).values())


def test_the_query_brings_a_topic_into_live_rows(own: Settings, lake: SparkSession) -> None:
    kafka.create_topics(own)
    pages = market(polls=30, assets=14, seed=9)
    client = producer(own)

    def send(some: list[dict[str, Any]]) -> None:
        for one in some:
            headers = [(name, value.encode()) for name, value in json.loads(one["headers"]).items()]
            client.produce(PRICES, one["value"], headers=headers, partition=0)
        assert client.flush(30) == 0
        query = live.start_query(lake, own, available_now=True)
        assert query.awaitTermination(120)
        assert query.exception() is None

    send(pages[:20])
    send(pages[20:])
    assert_equals_oracle(own, pages)
    ((_, batch_id, _),) = rows(own, "select * from live.batch")
    assert batch_id >= 1, "a drain is one batch or more, and the second goes on counting where the first ended"
