"""A running market's open hour, from the simulated exchange to SQL, judged by `verify` while it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings, load
from marketflow.stack import replay
from marketflow.stack.servers import free_ports
from marketflow.warehouse.connection import connect
from tests.e2e.conftest import run_dags, verify


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
