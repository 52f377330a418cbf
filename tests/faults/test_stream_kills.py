"""The stream application through kill -9, a lost session, a second driver, a dead query and a restart of PostgreSQL."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from marketflow.contracts.topics import CANDLES, PRICES, TRADES
from marketflow.settings import Settings
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import freshness, schema
from marketflow.warehouse.connection import connect
from tests.stream_stage import (
    RUNNING,
    assert_exactly_once,
    bronze_rows,
    group_lives,
    produce_numbers,
    producer,
    running,
    wait_until,
)

START = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Settings]:
    with temporary_stack(tmp_path / "home") as settings:
        schema.apply(settings)
        yield settings


def end_fence_session(settings: Settings, process_id: int) -> None:
    """End the PostgreSQL session that holds the lock on behalf of this driver."""
    with psycopg.connect(settings.dsn("postgres"), autocommit=True) as server:
        row = server.execute(
            "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity "
            "where application_name like %s",
            (f"marketflow stream, process {process_id} on %",),
        ).fetchone()
    assert row == (1,)


def test_bronze_is_exactly_once_through_kills_in_mid_batch(stack: Settings, tmp_path: Path) -> None:
    messages, chance = 60_000, random.Random(5)
    producing = threading.Thread(target=produce_numbers, args=(stack, TRADES, range(messages), 1_000))
    producing.start()
    for number in range(3):
        with running(stack, tmp_path / f"kill-{number}.log", "--fence-wait-s", "0") as stream:
            stream.wait_for_line(RUNNING)
            time.sleep(chance.uniform(2, 6))
            stream.kill()
    producing.join()
    with running(stack, tmp_path / "last.log", "--fence-wait-s", "0", "--available-now") as stream:
        assert stream.process.wait(240) == 0, stream.log.read_text()[-3000:]
    assert_exactly_once(stack, TRADES, messages)


def test_a_driver_that_lost_its_lock_is_gone_and_the_waiting_one_goes_on(stack: Settings, tmp_path: Path) -> None:
    with running(stack, tmp_path / "first.log", "--fence-wait-s", "0") as first:
        first.wait_for_line(RUNNING)
        produce_numbers(stack, TRADES, range(5_000))
        with running(stack, tmp_path / "second.log") as second:
            second.wait_for_line("is held by backend")
            assert f"process {first.process.pid} on" in second.log.read_text()
            end_fence_session(stack, first.process.pid)
            # what the fence promises; a new holder writes nothing for 15 s
            assert first.process.wait(5) == -signal.SIGKILL
            assert not group_lives(first.process.pid)
            produce_numbers(stack, TRADES, range(5_000, 10_000))
            second.wait_for_line(RUNNING)
            wait_until(lambda: bronze_rows(stack, TRADES).num_rows >= 10_000, 60)
            assert second.stop() == 0
    assert_exactly_once(stack, TRADES, 10_000)


def test_a_request_to_stop_ends_with_0_and_a_restart_goes_on_without_gap_or_double(
    stack: Settings, tmp_path: Path
) -> None:
    producing = threading.Thread(target=produce_numbers, args=(stack, TRADES, range(30_000), 1_000))
    with running(stack, tmp_path / "first.log", "--fence-wait-s", "0") as stream:
        stream.wait_for_line(RUNNING)
        producing.start()
        wait_until(lambda: bronze_rows(stack, TRADES).num_rows > 1_000, 60)
        assert stream.stop() == 0, stream.log.read_text()[-3000:]
        assert not group_lives(stream.process.pid)
    with running(stack, tmp_path / "second.log", "--fence-wait-s", "0") as stream:
        stream.wait_for_line(RUNNING)
        producing.join()
        wait_until(lambda: bronze_rows(stack, TRADES).num_rows >= 30_000, 120)
        assert_never_claimed_too_much(stack)
        assert stream.stop() == 0
    assert_exactly_once(stack, TRADES, 30_000)
    with connect(stack) as connection:
        events = dict(
            connection.execute(
                "select event, count(*) from ops.stream_progress where query = 'bronze_trades_raw' group by 1"
            ).fetchall()
        )
    assert events["terminated"] == 2
    assert events["progress"] > 5


def assert_never_claimed_too_much(settings: Settings) -> None:
    """Records acknowledged before complete_through are in bronze when the mark is read."""
    acknowledged = 30_000
    for _ in range(8):
        produce_numbers(settings, CANDLES, range(acknowledged, acknowledged + 700))
        acknowledged += 700
        with connect(settings) as connection:
            done_at = connection.execute("select clock_timestamp()").fetchone()[0]  # type: ignore[index]
        time.sleep(0.7)
        with connect(settings) as connection:
            mark = freshness.complete_through(connection, "bronze.candles_raw")
        if mark is not None and mark >= done_at:
            assert bronze_rows(settings, CANDLES).num_rows >= acknowledged - 30_000

    def caught_up() -> bool:
        with connect(settings) as connection:
            mark = freshness.complete_through(connection, "bronze.candles_raw")
        return mark is not None and mark >= done_at

    wait_until(caught_up, 60)
    assert bronze_rows(settings, CANDLES).num_rows == acknowledged - 30_000


def test_a_dead_query_ends_the_application_and_is_named(stack: Settings, tmp_path: Path) -> None:
    with running(stack, tmp_path / "stream.log", "--fence-wait-s", "0") as stream:
        stream.wait_for_line(RUNNING)
        with psycopg.connect(stack.dsn("postgres", "iceberg_catalog"), autocommit=True) as catalog:
            catalog.execute(
                "update iceberg_tables set metadata_location = 's3://lake/none' where table_name = 'candles_raw'"
            )
        produce_numbers(stack, CANDLES, range(10))
        assert stream.process.wait(120) == 1
        assert any(line.startswith("stream: query bronze_candles_raw ended: ") for line in stream.said())
        assert not group_lives(stream.process.pid)


def test_the_stream_outlives_seconds_without_postgres_and_without_its_session(stack: Settings, tmp_path: Path) -> None:
    topic, client = PRICES.full_name(stack.topic_prefix), producer(stack)
    with running(stack, tmp_path / "stream.log", "--fence-wait-s", "0") as stream:
        stream.wait_for_line(RUNNING)
        client.produce(topic, **page(0, {"bitcoin": (63_000.5, START)}))
        assert client.flush(30) == 0
        wait_until(lambda: live_prices(stack) == ["63000.500000000000000000"], 120)
        with no_new_sessions(stack):
            client.produce(topic, **page(1, {"ether": (3_000, START)}))
            assert client.flush(30) == 0
            stream.wait_for_line("live_prices tries again, PostgreSQL says")
            time.sleep(6)
        wait_until(lambda: live_prices(stack) == ["3000.000000000000000000", "63000.500000000000000000"], 60)
        end_fence_session(stack, stream.process.pid)
        stream.wait_for_line("the fence's lock is held again")
        assert stream.stop() == 0, stream.log.read_text()[-3000:]


@contextmanager
def no_new_sessions(settings: Settings) -> Iterator[None]:
    """PostgreSQL away for everyone but the fence: every other session of the dataset's database ends, none begins."""
    database = settings.postgres_database
    with psycopg.connect(settings.dsn("postgres", "postgres"), autocommit=True) as server:
        server.execute(f"alter database {database} with allow_connections false")
        server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = %s and application_name not like 'marketflow stream, process %%'",
            (database,),
        )
        try:
            yield
        finally:
            server.execute(f"alter database {database} with allow_connections true")


def live_prices(settings: Settings) -> list[str]:
    with connect(settings) as connection:
        rows = connection.execute("select price::text from live.price_metrics order by price").fetchall()
    return [price for (price,) in rows]


def page(poll: int, prices: dict[str, tuple[float, datetime]]) -> dict[str, Any]:
    """Value and headers of a page that arrived now."""
    headers = {
        "venue": "coingecko",
        "http_status": "200",
        "vs_currency": "usd",
        "origin": "simulated",
        "poll_id": f"poll-{poll}",
        "poll_started_at": str(int(START.timestamp()) * 1_000_000),
        "received_at": str(int(START.timestamp()) * 1_000_000),
    }
    coins = [
        {"id": asset, "symbol": asset, "name": asset, "current_price": price, "last_updated": updated.isoformat()}
        for asset, (price, updated) in prices.items()
    ]
    return {"value": json.dumps(coins), "headers": list(headers.items())}


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    empty = Settings(home=tmp_path / "empty")
    with running(empty, tmp_path / "stream.log") as stream:
        assert stream.process.wait(60) == 2
        assert [line for line in stream.log.read_text().splitlines() if line.startswith("stream: no secret")]
