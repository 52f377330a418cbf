"""An hour of trading on every venue with every fault at once, and what became of it: one run a seed.

The simulator makes an hour's trades (10,800 of each product at 3 a second) as fast as its clock allows, all seven
producers listen and poll, and everything that can go wrong does, by chance and seed. Then the market is paused, what
is open is healed or given up, every layer is filled, and `verify` judges it at rest against the market's truth. Starts
its own PostgreSQL, Kafka and S3 under a temporary folder. Writes benchmarks/results/venues-hour.json.

    .venv/bin/python -m benchmarks.venues_hour [--seeds 1,2,3,4,5] [--trades 10800] [--rate 60]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.results_file import write
from marketflow.contracts.gold import GOLD_TABLES
from marketflow.contracts.sources import SOURCES
from marketflow.settings import Settings, load
from marketflow.stack import heal, replay
from marketflow.stack.servers import child_process, free_ports, temporary_stack
from marketflow.verify import judge
from marketflow.warehouse.connection import connect
from marketflow.warehouse.publish import publish

# ccxt polls other exchanges, and the simulator is none of its own
PRODUCERS = tuple(name for name in SOURCES if name != "ccxt")
PRODUCTS = ("BTC-USD", "ETH-USD", "BTC-USDT", "ETH-USDT")
PATIENCE_S = 240.0
# Chances per trade of a feed's message, and per request where it is a page's.
FAULTS = {
    **dict.fromkeys(("drop", "duplicate", "reorder", "late"), 0.004),
    **dict.fromkeys(("malformed", "truncated", "null_price", "negative_size", "future_time", "year_one"), 0.002),
    **dict.fromkeys(("conflicting_duplicate", "unknown_type", "error_object", "wrong_type", "unknown_field"), 0.002),
    "vanish": 0.001,
    "id_reset": 0.001,
    **{f"{venue}:clock_skew": 0.002 for venue in ("coinbase_exchange", "coinbase_advanced", "binance")},
    **dict.fromkeys(("disconnect", "stall", "half_frame"), 0.0002),
    "oversize": 0.0001,
    **dict.fromkeys(("http_429", "http_5xx", "binance:http_418", "slow_body"), 0.02),
    **dict.fromkeys(("empty_array", "empty_object", "page_hole"), 0.02),
    **{f"{venue}:currency_switch": 0.2 for venue in ("coingecko", "coincap", "cryptocompare")},
}


def control(settings: Settings, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the simulator."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{settings.simulator_rest_port}/control/{path}",
        method="GET" if path == "status" else "POST",
        data=None if path == "status" else json.dumps(body or {}).encode(),
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def with_ports(home: Path) -> Settings:
    """The stack's settings with ports for the simulator and every producer, as children read them."""
    names = ["simulator_ws_port", "simulator_rest_port", *(SOURCES[name].metrics_port_setting for name in PRODUCERS)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    file = home / "stack.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | ports | {"sources": PRODUCERS}))
    return load(home=home)


@contextmanager
def exchange(settings: Settings, seed: int, rate: float) -> Iterator[None]:
    """The simulator, with everything that can go wrong."""
    knobs = {
        "MARKETFLOW_SIMULATOR_SEED": str(seed),
        "MARKETFLOW_SIMULATOR_RATE": str(rate),
        "MARKETFLOW_SIMULATOR_FAULTS": json.dumps(FAULTS),
        "MARKETFLOW_SIMULATOR_WAIT_FOR_LISTENER_S": "60",
        "MARKETFLOW_SIMULATOR_KEYLESS_CALLS_PER_MINUTE": "0",
    }
    with child_process(settings, "simulator", "-m", "marketflow.simulator", **knobs):
        yield


def play(settings: Settings, trades: int) -> dict[str, Any]:
    """The listeners, until every product has traded, the market is paused and the ledger has nothing open."""
    polls = {f"MARKETFLOW_{name}_POLL_INTERVAL_S": "10" for name in ("COINGECKO", "COINCAP", "CRYPTOCOMPARE")}
    polls["MARKETFLOW_BINANCE_PRICES_POLL_INTERVAL_S"] = "10"
    with ExitStack() as running:
        producers = {
            name: running.enter_context(child_process(settings, name, "-m", "marketflow.ingest", name, **polls))
            for name in PRODUCERS
        }
        first = wait_for(lambda: ids(settings) if answers(settings) else None, "the simulator")
        wait_for(lambda: all(last - first[one] >= trades for one, last in ids(settings).items()), "the trades", 1800)
        control(settings, "pause")
        time.sleep(10)  # what is late or was held back comes, and the last loss is announced
        wait_for(lambda: not open_holes(settings) or None, "healed holes", PATIENCE_S, give_up=True)
        status = control(settings, "status")
        ended = {name: child.poll() for name, child in producers.items() if child.poll() is not None}
    return {"faults_done": status["faults_done"], "producers_that_ended": ended}


def answers(settings: Settings) -> bool:
    """Whether the simulator is up."""
    try:
        return bool(control(settings, "status"))
    except OSError:
        return False


def ids(settings: Settings) -> dict[str, int]:
    """Product to its newest trade's id."""
    return {name: product["last_trade_id"] for name, product in control(settings, "status")["products"].items()}


def open_holes(settings: Settings) -> int:
    """Rows of the ledger that are open."""
    with connect(settings) as connection:
        row = connection.execute("select count(*) from ops.trade_gap where status = 'open'").fetchone()
    return int(row[0]) if row else 0


def wait_for(question: Any, what: str, patience_s: float = 120.0, *, give_up: bool = False) -> Any:
    """Ask until the answer is true."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        answer = question()
        if answer:
            return answer
        time.sleep(1)
    if give_up:
        return None
    raise TimeoutError(f"waited {patience_s:.0f} s for {what}")


def ledger_of(settings: Settings) -> dict[str, dict[str, int]]:
    """Status to the number of holes and of trades in them."""
    with connect(settings) as connection:
        rows = connection.execute(
            "select venue || ' ' || status, count(*), sum(last_missing_id - first_missing_id + 1)::bigint "
            "from ops.trade_gap group by 1 order by 1"
        ).fetchall()
    return {status: {"holes": holes, "trades": trades} for status, holes, trades in rows}


def vanished(settings: Settings) -> int:
    """Trades of the truth that the simulator was told never to tell."""
    path = settings.home / "truth" / "vanished.ndjson"
    return len(path.read_text().splitlines()) if path.exists() else 0


def fill(settings: Settings) -> None:
    """Bring every layer up to what Kafka has."""
    replay.run_job(settings, "stream_market", "--available-now")
    replay.run_job(settings, "advance")


def hour(seed: int, trades: int, rate: float) -> dict[str, Any]:
    """One run."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, temporary_stack(Path(folder) / "home") as bare:
        settings = with_ports(bare.home)
        replay.prepare_dataset(settings)
        with exchange(settings, seed, rate):
            played = play(settings, trades)
            played_s = time.monotonic() - began
            fill(settings)
            # what the Dag does every ten minutes: in silver, nothing that the producers had not found
            seen = heal.heal_holes(settings, say=lambda _: None)
        fill(settings)
        for table in GOLD_TABLES:
            publish(settings, table.qualified)
        report = judge.run(settings, at_rest=True, output=lambda _: None)
        compared = [one for one in report.comparisons if one.table == "silver.trades"]
        return {
            "seed": seed,
            "clean": report.clean,
            "problems": [str(problem) for problem in report.problems][:20],
            "trades_compared": sum(one.compared for one in compared),
            "missing": sum(one.missing for one in compared),
            "duplicate": sum(one.duplicate for one in compared),
            "differing": sum(one.differing for one in compared),
            "ledger": ledger_of(settings),
            "vanished_trades": vanished(settings),
            "trades_that_only_silver_lacked": seen.found,
            "healed_by_the_dag": seen.healed,
            "seconds_of_trading": round(played_s),
            "seconds_in_all": round(time.monotonic() - began),
            **played,
        }


def main() -> None:
    """Run every seed and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--trades", type=int, default=10_800)
    parser.add_argument("--rate", type=float, default=60.0)
    asked = parser.parse_args()
    runs = []
    for seed in map(int, asked.seeds.split(",")):
        runs.append(hour(seed, asked.trades, asked.rate))
        print(json.dumps(runs[-1], indent=1, default=str), flush=True)
    results = {
        "what": "every venue, every fault at once, then verify at rest",
        "products": PRODUCTS,
        "trades_of_each_product": asked.trades,
        "trades_per_s_of_each_product": asked.rate,
        "chances": FAULTS,
        "runs": runs,
    }
    write("venues-hour", results)
    sys.exit(0 if all(run["clean"] for run in runs) else 1)


if __name__ == "__main__":
    main()
