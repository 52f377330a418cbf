"""From the venues' own messages to SQL: a recorded morning and a running market, each judged by `verify`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marketflow.contracts.gold import PRICE_METRICS
from marketflow.lake import readers
from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings, load
from marketflow.stack import replay
from marketflow.stack.servers import free_ports
from marketflow.warehouse.connection import connect
from tests.e2e.conftest import run_dags, verify

HOURS = 3
PRODUCTS = "BTC-USD,ETH-USD"


@pytest.fixture(scope="module")
def recorded(servers: Settings, tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Path, datetime]:
    """Dataset replay after a three-hour capture went through every layer: its settings, its truth, its first hour."""
    folder = tmp_path_factory.mktemp("capture")
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    start = now - timedelta(hours=HOURS + 1)
    arguments = ["--out", str(folder / "capture.ndjson"), "--truth", str(folder / "truth"), "--hours", str(HOURS)]
    arguments += ["--start", start.isoformat(), "--rate", "0.5", "--seed", "11", "--assets", "20"]
    arguments += ["--poll-interval-s", "30", "--products", PRODUCTS]
    command = [sys.executable, "-m", "marketflow.simulator", "capture", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    settings = load(home=servers.home, dataset="replay")
    accounting = replay.run_on_servers(settings, [folder / "capture.ndjson"], fresh=True, say=lambda _: None)
    assert accounting.balanced, accounting.problems
    assert accounting.rejected == []
    return settings, folder / "truth", start


def _gold(settings: Settings, table: str) -> list[tuple[Any, ...]]:
    with readers.duckdb(settings) as lake:
        return sorted(lake.execute(f"select * from {table}").fetchall(), key=repr)


@pytest.mark.timeout(1500)
def test_a_recorded_morning_is_true_in_every_layer_and_every_gold_dag_restates_it(
    recorded: tuple[Settings, Path, datetime],
) -> None:
    settings, truth, start = recorded
    tables = ("gold.bars", "gold.price_metrics", "gold.top_movers")
    before = {table: _gold(settings, table) for table in tables}
    assert len([row for row in before["gold.bars"] if row[2] == "1h"]) == HOURS * 2
    hours = [(start + timedelta(hours=hour)).isoformat() for hour in range(HOURS)]
    wishes = [f"{dag}@{hour}" for dag in ("gold_price_metrics", "gold_bars") for hour in hours]
    published = ["publish_bars", "publish_price_metrics", "publish_top_movers"]
    states = run_dags(settings, *wishes, *published)
    assert len(states) == len(wishes) + len(published)
    # compared table by table and as a truth value: a difference of thousands of rows is not for pytest to explain
    same = [table for table in tables if _gold(settings, table) == before[table]]
    assert same == list(tables), "an hour written twice is the same hour"
    judged = verify(settings, "--at-rest", "--truth", str(truth), "--json")
    assert judged.returncode == 0, judged.stdout[-6000:] + judged.stderr[-2000:]
    with connect(settings, "marketflow_reader") as connection:
        counts = {table: connection.execute(f"select count(*) from {table}").fetchone()[0] for table in tables}
        enriched = connection.execute(
            "select count(*) from mart.enriched_prices where id = 'bitcoin' and change_5min is not null"
        ).fetchone()[0]
    assert counts == {table: len(rows) for table, rows in before.items()}
    names = PRICE_METRICS.column_names
    asset, measure = names.index("asset_id"), names.index("change_5min")
    bitcoin = [row for row in before["gold.price_metrics"] if row[asset] == "bitcoin" and row[measure] is not None]
    assert enriched == len(bitcoin) > 200


@contextmanager
def _process(settings: Settings, name: str, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    (settings.home / "logs").mkdir(exist_ok=True)
    with (settings.home / "logs" / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**embedded_environment(settings), **variables},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def _wait(settings: Settings, question: str, patience_s: float = 180.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        with connect(settings) as connection:
            row = connection.execute(question).fetchone()
        if row and row[0]:
            return
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for: {question}"
        time.sleep(1)


@pytest.mark.timeout(900)
def test_the_open_hour_of_a_running_market_is_true_from_the_exchange_to_sql(servers: Settings) -> None:
    settings = servers
    names = ("simulator_ws_port", "simulator_rest_port", "producer_coinbase_metrics_port")
    names = (*names, "producer_coingecko_metrics_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    recorded = json.loads((settings.home / "stack.json").read_text())
    (settings.home / "stack.json").write_text(json.dumps(recorded | ports))
    settings = load(home=settings.home, dataset="sim")
    replay.prepare_dataset(settings)
    stream = str(PROJECT_FOLDER / "spark_jobs" / "stream_market.py")
    with (
        _process(settings, "stream", stream, MARKETFLOW_BRONZE_TRIGGER_S="5", MARKETFLOW_LIVE_TRIGGER_S="3"),
        _process(settings, "coinbase", "-m", "marketflow.ingest", "coinbase_exchange"),
        _process(settings, "simulator", "-m", "marketflow.simulator", MARKETFLOW_SIMULATOR_WAIT_FOR_LISTENER_S="60"),
        _process(
            settings, "coingecko", "-m", "marketflow.ingest", "coingecko", MARKETFLOW_COINGECKO_POLL_INTERVAL_S="5"
        ),
    ):
        _wait(settings, "select count(*) > 100 from live.price_metrics")
        _wait(settings, "select count(*) = 4 from ops.layer_freshness where layer = 'bronze'")
        run_dags(settings, "advance", "publish_bars", "publish_price_metrics", "publish_top_movers")
        _wait(settings, "select min(complete_through) > now() - interval '8 minutes' from ops.layer_freshness")
        judged = verify(settings, "--json")
    assert judged.returncode == 0, judged.stdout[-6000:] + judged.stderr[-2000:]
    with connect(settings, "marketflow_reader") as connection:
        open_bars = connection.execute("select count(*) from mart.bars where not is_complete").fetchone()[0]
        gaps = connection.execute("select count(*) from ops.trade_gap").fetchone()[0]
    assert open_bars > 0
    assert gaps == 0, "a feed that listens from the start misses nothing"
