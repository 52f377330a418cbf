"""How long a hole of 1,000 trades stays open: from its detection by the feed until every trade is in Kafka.

Each trade venue in turn: the simulator, its real feed, 1,000 trades in a row dropped, and the ledger's own
word on when the hole was seen and when it was healed. Starts its own Kafka and PostgreSQL under a temporary folder.
Writes benchmarks/results/heal.json.

    .venv/bin/python -m benchmarks.heal [--trades 1000] [--times 5]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.results_file import write
from benchmarks.venues_hour import answers, control, open_holes, process, wait_for, with_ports
from marketflow.settings import Settings
from marketflow.stack import replay
from marketflow.stack.servers import temporary_stack
from marketflow.warehouse.connection import connect

PRODUCT_OF = {"coinbase_exchange": "BTC-USD", "coinbase_advanced": "ETH-USD", "binance": "BTC-USDT"}
RATE = "300"
BOUND_S = 5.0


def holes(settings: Settings, venue: str) -> list[dict[str, Any]]:
    """Ledger rows of a venue that are closed, oldest first."""
    with connect(settings) as connection:
        rows = connection.execute(
            "select last_missing_id - first_missing_id + 1, status, "
            "extract(epoch from healed_at - detected_at)::float8 "
            "from ops.trade_gap where venue = %s and status <> 'open' order by detected_at, first_missing_id",
            (venue,),
        ).fetchall()
    return [{"trades": trades, "status": status, "seconds": seconds} for trades, status, seconds in rows]


def lose(settings: Settings, venue: str, trades: int) -> dict[str, Any]:
    """Drop that many trades and wait until they are back."""
    before = len(holes(settings, venue))
    order = {"fault": "drop", "venue": venue, "product": PRODUCT_OF[venue]}
    if venue == "coinbase_advanced":
        # a message there holds a tick's trades, so a time is lost and not a number
        control(settings, "faults", order | {"seconds": trades / float(RATE)})
    else:
        control(settings, "faults", order | {"count": trades})
    wait_for(lambda: len(holes(settings, venue)) > before and not open_holes(settings), f"{venue}'s heal")
    found = holes(settings, venue)[before:]
    return {
        "trades": sum(hole["trades"] for hole in found),
        "status": sorted({hole["status"] for hole in found}),
        "seconds": round(max(hole["seconds"] or 0.0 for hole in found), 2),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=1_000)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    load = round(os.getloadavg()[0], 2)
    results: dict[str, list[dict[str, Any]]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        temporary_stack(Path(folder) / "home") as bare,
        ExitStack() as running,
    ):
        settings = with_ports(bare.home)
        replay.prepare_dataset(settings)
        knobs = {"MARKETFLOW_SIMULATOR_RATE": RATE, "MARKETFLOW_SIMULATOR_TAPE": "false"}
        running.enter_context(process(settings, "simulator", "-m", "marketflow.simulator", **knobs))
        wait_for(lambda: answers(settings), "the simulator")
        for venue in PRODUCT_OF:
            running.enter_context(process(settings, venue, "-m", "marketflow.ingest", venue))
        time.sleep(15)
        for venue in PRODUCT_OF:
            results[venue] = [lose(settings, venue, asked.trades) for _ in range(asked.times)]
    worst = max(run["seconds"] for runs in results.values() for run in runs)
    told = {
        "what": "from a hole's detection to its last trade in Kafka, by the ledger; the grace of 1 s is in it",
        "trades_per_s_of_each_product": float(RATE),
        "load_of_the_machine_before": load,
        "bound_s": BOUND_S,
        "worst_s": worst,
        "venues": results,
    }
    print(write("heal", told).read_text())


if __name__ == "__main__":
    main()
