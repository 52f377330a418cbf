"""Trades for the tests of gold.bars, and every bar there should be of them, in slow plain Python."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

from gold_lake import trade

from marketflow.contracts.gold import BARS

Row = dict[str, Any]
SECONDS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "1d": 86400}


def market(first_id: int, start: datetime, end: datetime, *, step_s: float, seed: int, **other: Any) -> list[Row]:
    """Trades about every `step_s`, ids in order with a hole now and then."""
    chance = random.Random(seed)
    rows, trade_id, when = [], first_id, start
    while when < end:
        price = f"{chance.randint(9_000_000, 11_000_000) / 100:.2f}"
        size = f"{chance.randint(1, 10**8)}e-8"
        side = chance.choice(("buy", "sell"))
        rows.append(trade(trade_id, when, price, size, taker_side=side, **other))
        trade_id += 1 if chance.random() > 0.02 else 3
        when += timedelta(microseconds=int(chance.expovariate(1 / step_s) * 1e6) + 1)
    return rows


def oracle(trades: list[Row], complete_through: datetime | None) -> list[Row]:
    """Every bar there should be, by definition."""
    bars = []
    for product in sorted({row["product_id"] for row in trades}):
        own = sorted((row for row in trades if row["product_id"] == product), key=lambda row: row["trade_id"])
        times = [row["event_ts"] for row in own]
        holes = [(a, b) for a, b in pairwise(own) if b["trade_id"] > a["trade_id"] + 1]
        for interval, seconds in SECONDS.items():
            opening = datetime.fromtimestamp(min(times).timestamp() // seconds * seconds, UTC)
            while opening <= max(times):
                end = opening + timedelta(seconds=seconds)
                inside = [row for row in own if opening <= row["event_ts"] < end]
                covered = min(complete_through or datetime.min.replace(tzinfo=UTC), max(times))
                bars.append(bar(product, interval, opening, end, inside, holes, covered))
                opening = end
    return sorted(bars, key=lambda row: tuple(row[name] for name in BARS.key))


def bar(
    product: str,
    interval: str,
    opening: datetime,
    end: datetime,
    inside: list[Row],
    holes: list[Any],
    through: datetime,
) -> Row:
    """One bar."""
    prices = [row["price"] for row in inside]
    volume, notional = (
        sum((row["size"] for row in inside), Decimal(0)),
        sum((row["notional"] for row in inside), Decimal(0)),
    )
    mean = round(Fraction(notional) / Fraction(volume) * 10**18) if volume else None
    return {
        "venue": "coinbase_exchange",
        "product_id": product,
        "interval": interval,
        "open_ts": opening,
        "open": prices[0] if prices else None,
        "high": max(prices, default=None),
        "low": min(prices, default=None),
        "close": prices[-1] if prices else None,
        "volume": volume,
        "notional": notional,
        "vwap": None if mean is None else Decimal(mean) / 10**18 if mean < 10**26 else Decimal(f"{mean}e-18"),
        "trade_count": len(inside),
        "buy_volume": sum((row["size"] for row in inside if row["taker_side"] == "buy"), Decimal(0)),
        "sell_volume": sum((row["size"] for row in inside if row["taker_side"] == "sell"), Decimal(0)),
        "has_gap": any(
            min(a["event_ts"], b["event_ts"]) < end and max(a["event_ts"], b["event_ts"]) >= opening for a, b in holes
        ),
        "is_complete": end <= through,
        "first_trade_id": inside[0]["trade_id"] if inside else None,
        "last_trade_id": inside[-1]["trade_id"] if inside else None,
    }
