"""A day of 50,000 records through every layer: seconds of work, layer by layer.

50,000 records is what comparable projects process. A generated day (two products, 20 coins polled once a minute, about
170,000 heartbeats beside) goes into dataset replay of servers started for it: Kafka, bronze, silver, gold, PostgreSQL.
`verify` then judges all of it against the generator's truth. Writes benchmarks/results/day.json.

    .venv/bin/python -m benchmarks.day
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.results_file import write
from marketflow.ingest.replay import replay_files
from marketflow.lake import readers
from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings, load
from marketflow.stack import replay
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse import publish

GOLD = ("gold.bars", "gold.price_metrics", "gold.top_movers", "gold.trade_features", "gold.product_day")
SILVER = ("silver.trades", "silver.quotes", "silver.asset_prices")


def generate(folder: Path) -> tuple[Path, Path]:
    """The day's messages and their truth."""
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=25)
    out, truth = folder / "day.ndjson", folder / "truth"
    arguments = ["--out", str(out), "--truth", str(truth), "--start", start.isoformat(), "--hours", "24"]
    arguments += ["--rate", "0.065", "--assets", "20", "--poll-interval-s", "60", "--seed", "5"]
    arguments += ["--products", "BTC-USD,ETH-USD"]
    subprocess.run([sys.executable, "-m", "marketflow.simulator", "capture", *arguments], check=True)
    return out, truth


def verified(settings: Settings, truth: Path) -> int:
    """Exit status of `marketflow verify` on the resting dataset."""
    command = [sys.executable, "-m", "marketflow.verify", "--at-rest", "--truth", str(truth)]
    return subprocess.run(command, env=embedded_environment(settings), check=False).returncode


def main() -> None:
    """Generate, run, time, verify, write."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - began, 1)
        print(f"{name}: {seconds[name]} s", flush=True)

    with tempfile.TemporaryDirectory() as folder, temporary_stack(Path(folder) / "home") as servers:
        file, truth = generate(Path(folder))
        settings = load(home=servers.home, dataset="replay")
        replay.prepare_dataset(settings)
        with timed("into_kafka"):
            sent = replay_files(settings, [file], progress=lambda _path, _count: None)
        layers: dict[str, Callable[[], object]] = {
            "bronze": lambda: replay.run_job(settings, "stream_market", "--available-now"),
            "silver_and_gold": lambda: replay.run_job(settings, "advance", "--days"),
            "postgres": lambda: [publish.publish(settings, table) for table in GOLD],
        }
        for name, work in layers.items():
            with timed(name):
                work()
        with readers.duckdb(settings) as lake:
            rows = {name: lake.execute(f"select count(*) from {name}").fetchone()[0] for name in (*SILVER, *GOLD)}
        status = verified(settings, truth)
    result = {
        "messages": sent.messages,
        "records": sum(rows[name] for name in SILVER),
        "rows": rows,
        "seconds": seconds,
        "seconds_in_all": round(sum(seconds.values()), 1),
        "note": "each Spark program's start is in its seconds",
        "verify_exit_status": status,
    }
    print(json.dumps(result, indent=1))
    print(f"wrote {write('day', result)}")
    sys.exit(status)


if __name__ == "__main__":
    main()
