"""What the trade features cost: the kernel alone, in chunks, on one core and on two; trades a second and peak memory.

Made-up trades of a 60,000-dollar product, 40 a second with a quote before every second one, the whole catalogue. Two
processes take a chunk each, as two of Spark's workers do. Then a tape of ten million trades in chunks: the rows of its
last hundred trades must be those that its last 601 trades give alone. Writes benchmarks/results/features.json and
features-drift.json.

    .venv/bin/python -m benchmarks.features [--trades 1000000] [--drift 10000000]
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

# before polars is imported: a worker has one core
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
import psutil

from benchmarks.results_file import write
from marketflow.contracts.columns import Type
from marketflow.features import frames
from marketflow.features.offline import CHUNK, chunks
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.features.trades.kernel import trade_features
from marketflow.features.trades.tape import LOOKBACK

SEED = 20
ROUNDS = 3
MEMORY_CHUNKS = (50_000, 100_000, 200_000, 400_000, 800_000)
ROWS_COMPARED = 100
MOST_APART = 1e-12
"""What a value may differ by for the rows around its own, of itself: what the unit tests hold the kernel to."""


def tape(count: int, seed: int = SEED) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Trades and quotes in silver's columns."""
    source = np.random.default_rng(seed)
    rows = pl.DataFrame(
        {
            "trade_id": np.arange(count, dtype=np.int64) + 1_000,
            "cents": 6_000_000 + source.integers(-100, 101, count).cumsum(),
            "grains": source.integers(1, 10**8, count),
            "is_buy": source.integers(0, 2, count, dtype=np.int8) == 1,
            "us": 1_760_000_000_000_000 + source.integers(0, 50_000, count).cumsum(),
        }
    )
    trades = rows.select(
        pl.lit("coinbase_exchange").alias("venue"),
        pl.lit("BTC-USD").alias("product_id"),
        "trade_id",
        _money("cents", 2).alias("price"),
        _money("grains", 8).alias("size"),
        pl.when("is_buy").then(pl.lit("buy")).otherwise(pl.lit("sell")).alias("taker_side"),
        pl.from_epoch("us", time_unit="us").dt.replace_time_zone("UTC").alias("event_ts"),
        pl.lit(None, pl.Int64).alias("sequence"),
    )
    quotes = trades.gather_every(2).select(
        *("venue", "product_id", "sequence"),
        pl.col("event_ts") - pl.duration(microseconds=300),
        *(pl.col("price").alias(name) for name in ("best_bid", "best_ask")),
        *(pl.col("size").alias(name) for name in ("best_bid_size", "best_ask_size")),
    )
    return trades, quotes


def _money(column: str, places: int) -> pl.Expr:
    digits = pl.col(column).cast(pl.String).str.zfill(places + 1)
    text = digits.str.head(-places) + "." + digits.str.tail(places)
    return text.cast(frames.MONEY)


@dataclass(frozen=True, slots=True)
class Run:
    """What all chunks of a tape took: processor seconds, seconds by the clock, and the process's peak in MiB."""

    processor_s: float
    clock_s: float
    peak_mib: float


def run(count: int, seed: int = SEED, chunk: int = CHUNK) -> Run:
    """The kernel over a tape, chunk by chunk."""
    trades, quotes = tape(count, seed)
    processor, clock, peak = time.process_time(), time.perf_counter(), 0.0
    for rows in chunks(trades, quotes, chunk):
        assert rows.width > len(CATALOGUE)
        peak = max(peak, psutil.Process().memory_info().rss / 1024**2)
    return Run(time.process_time() - processor, time.perf_counter() - clock, peak)


def side_by_side(count: int) -> float:
    """Trades a second of two processes with half of the trades each, by the clock, the making of them left out."""
    # a fork of a process that has used Polars hangs: its threads are not in the copy
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(run, [CHUNK, CHUNK]))  # started and warm
        runs = list(pool.map(run, [count // 2] * 2, [SEED, SEED + 1]))
    return count / max(one.clock_s for one in runs)


def memory_by_chunk() -> dict[int, int]:
    """MiB that a process takes at its peak for one chunk of so many trades, each in a process of its own."""
    found = {}
    for chunk in MEMORY_CHUNKS:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found[chunk] = round(pool.submit(run, chunk, SEED, chunk).result().peak_mib)
    return found


def drift(count: int) -> dict[str, Any]:
    """How far the last rows of a long tape lie from a fresh computation of its end; fails beyond 1e-12 of the value."""
    trades, quotes = tape(count)
    began = time.process_time()
    for rows in chunks(trades, quotes):
        last = rows.tail(ROWS_COMPARED)
    spent = time.process_time() - began
    fresh = trade_features(trades.tail(LOOKBACK + ROWS_COMPARED + 1), quotes.tail(5_000)).tail(ROWS_COMPARED)
    worst = 0.0
    for one in CATALOGUE.values():
        mine, other = last[one.name], fresh[one.name]
        assert mine.is_null().equals(other.is_null()), one.name
        if one.type is not Type.DOUBLE:
            assert mine.equals(other), one.name
            continue
        # zero over zero is not a number: no difference
        worst = max(worst, float(((mine - other).abs() / mine.abs()).fill_nan(0).max() or 0))
    assert last["trade_id"].equals(fresh["trade_id"])
    assert worst <= MOST_APART, worst
    return {
        "trades": count,
        "features_and_targets": len(CATALOGUE),
        "rows_compared": ROWS_COMPARED,
        "worst_relative_difference": worst,
        "seconds_of_processor": round(spent, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def speed(count: int) -> dict[str, Any]:
    """Trades a second and memory."""
    rounds = [run(count) for _ in range(ROUNDS)]
    return {
        "trades": count,
        "features_and_targets": len(CATALOGUE),
        "chunk": CHUNK,
        "trades_per_s_one_core": round(count / min(one.processor_s for one in rounds)),
        "trades_per_s_two_cores": round(side_by_side(count)),
        "peak_mib_of_a_process": round(max(one.peak_mib for one in rounds)),
        "peak_mib_by_chunk": memory_by_chunk(),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=1_000_000, help="of the speed; 0: not measured")
    parser.add_argument("--drift", type=int, default=10_000_000, help="of the long tape; 0: not run")
    asked = parser.parse_args()
    for name, measured, count in (("features", speed, asked.trades), ("features-drift", drift, asked.drift)):
        if count:
            results = measured(count)
            print(results)
            print(write(name, results))


if __name__ == "__main__":
    main()
