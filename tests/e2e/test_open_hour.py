"""A running market's open hour, from the simulated exchange to SQL, judged by `verify` while it goes on."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest

from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import Settings, load
from marketflow.stack import replay
from marketflow.stack.servers import child_process, free_ports
from marketflow.warehouse.connection import connect
from tests.e2e.conftest import run_dags, verify


def _wait(settings: Settings, question: str, patience_s: float = 180.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        with connect(settings) as connection:
            row = connection.execute(question).fetchone()
        if row and row[0]:
            return
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for: {question}"
        time.sleep(1)


@pytest.mark.timeout(1500)
def test_the_open_hour_of_a_running_market_is_true_from_the_exchange_to_sql(servers: Settings) -> None:
    settings = servers
    producers = load(home=settings.home, dataset="sim").active_sources
    assert {source.name for source in producers} >= {"coinbase_exchange", "binance", "coingecko", "coincap"}
    names = ["simulator_ws_port", "simulator_rest_port", *(source.metrics_port_setting for source in producers)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    recorded = json.loads((settings.home / "stack.json").read_text())
    (settings.home / "stack.json").write_text(json.dumps(recorded | ports))
    settings = load(home=settings.home, dataset="sim")
    replay.prepare_dataset(settings)
    stream = str(PROJECT_FOLDER / "spark_jobs" / "stream_market.py")
    # each poll is a batch of the live query, and two cores have more to do here than that
    often = {f"MARKETFLOW_{name}_POLL_INTERVAL_S": "15" for name in ("COINGECKO", "COINCAP", "BINANCE_PRICES")}
    waits = {"MARKETFLOW_SIMULATOR_WAIT_FOR_LISTENER_S": "60"}
    with ExitStack() as running:
        triggers = {"MARKETFLOW_BRONZE_TRIGGER_S": "5", "MARKETFLOW_LIVE_TRIGGER_S": "3"}
        running.enter_context(child_process(settings, "stream", stream, **triggers))
        running.enter_context(child_process(settings, "simulator", "-m", "marketflow.simulator", **waits))
        for source in producers:
            running.enter_context(child_process(settings, source.name, "-m", "marketflow.ingest", source.name, **often))
        _wait(settings, "select count(*) > 100 from live.price_metrics")
        _wait(settings, "select count(distinct source) = 3 from live.price_metrics")
        _wait(settings, "select count(*) = 4 from ops.layer_freshness where layer = 'bronze'")
        run_dags(
            settings, "advance", "publish_bars", "publish_price_metrics", "publish_top_movers", "publish_trade_features"
        )
        _wait(settings, "select min(complete_through) > now() - interval '8 minutes' from ops.layer_freshness")
        judged = verify(settings, "--json")
    assert judged.returncode == 0, judged.stdout[-6000:] + judged.stderr[-2000:]
    with connect(settings, "marketflow_reader") as connection:
        open_bars = connection.execute("select count(*) from mart.bars where not is_complete").fetchone()[0]
        venues = connection.execute("select count(distinct venue) from mart.bars").fetchone()[0]
        gaps = connection.execute("select count(*) from ops.trade_gap").fetchone()[0]
    assert open_bars > 0
    assert venues == 2
    assert gaps == 0, "a feed that listens from the start misses nothing"
