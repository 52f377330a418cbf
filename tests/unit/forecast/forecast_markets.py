"""Made-up markets of which it is known whether they can be foretold."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import polars as pl

from marketflow.features.trades.kernel import trade_features

MONEY = pl.Decimal(38, 18)
START = datetime(2026, 3, 10, 10, tzinfo=UTC)
TRADES = 5_000


@lru_cache
def rows(kind: str, trades: int = TRADES, per_instant: int = 1) -> pl.DataFrame:
    """Rows of gold.trade_features of a market of that kind.

    `walk`: every step up or down, by a fair coin. `momentum`: behind prices that jump up and down the middle
    keeps its direction for 20 to 100 trades. One change of the price tells nothing of that, ten tell nearly all.
    """
    chance, middle, drift, turn, tape = random.Random(5), 6_000_000, 1, 0, []
    for number in range(trades):
        if number == turn:
            drift, turn = -drift, turn + chance.randint(20, 100)
        size, side = chance.randint(1, 10**6), chance.choice(("buy", "sell"))
        middle += drift if kind == "momentum" else chance.choice((-1, 1)) * chance.randint(1, 5)
        cents = middle + chance.choice((-6, 6)) * (kind == "momentum")
        when = START + timedelta(seconds=number // per_instant)
        tape.append(("binance", "BTC-USDT", 100 + number, f"{cents}e-2", f"{size}e-6", side, when, None))
    schema = ("venue", "product_id", "trade_id", "price", "size", "taker_side", "event_ts", "sequence")
    frame = pl.DataFrame(tape, schema=schema, orient="row", schema_overrides={"sequence": pl.Int64})
    exact = frame.with_columns(pl.col("price", "size").cast(pl.Float64).round(6).cast(pl.String).cast(MONEY))
    made = trade_features(exact.with_columns(pl.col("event_ts").cast(pl.Datetime("us", "UTC"))))
    return made.filter(pl.col("history") >= 500).drop("history", "quote_is_later")
