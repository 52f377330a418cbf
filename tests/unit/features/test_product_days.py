"""A product's day from its bars, against the day's trades in plain Python."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import polars as pl
import pytest

from marketflow.contracts.gold import BARS, PRODUCT_DAY
from marketflow.errors import KernelError
from marketflow.features import frames
from marketflow.features.bars import bars, folded
from marketflow.features.days import product_days

MIDNIGHT = datetime(2026, 3, 10, tzinfo=UTC)
DAY = timedelta(days=1)
THROUGH = MIDNIGHT + timedelta(hours=30)


def tape(product: str, first_id: int, start: datetime, end: datetime, seed: int) -> list[dict[str, object]]:
    """Trades some minutes apart, with holes in the ids."""
    chance, rows, trade_id, when = random.Random(seed), [], first_id, start
    while when < end:
        price, size = Decimal(chance.randint(99_000, 101_000)) / 10, Decimal(chance.randint(1, 10**6)) / 10**4
        rows.append(
            {
                **{"venue": "binance", "product_id": product, "trade_id": trade_id, "price": price, "size": size},
                **{"notional": price * size, "taker_side": chance.choice(("buy", "sell")), "event_ts": when},
            }
        )
        trade_id += chance.choice((1, 1, 1, 1, 1, 1, 1, 2))
        when += timedelta(seconds=chance.expovariate(1 / 240) + 0.001)
    return rows


def bars_of(trades: list[dict[str, object]]) -> pl.DataFrame:
    """All the bars that gold.bars would hold of two days of one product."""
    frame = pl.DataFrame(
        trades,
        schema_overrides=dict.fromkeys(("price", "size", "notional"), frames.MONEY) | {"event_ts": frames.TIMESTAMP},
    )
    parts = [
        bars(frame, interval=interval, start=MIDNIGHT, end=MIDNIGHT + 2 * DAY, complete_through=THROUGH)
        for interval in ("1m", "5m", "15m", "1h")
    ]
    return pl.concat([*parts, folded(parts[-1], "1d")])


def test_a_day_is_what_its_trades_say() -> None:
    btc = tape("BTC-USD", 10, MIDNIGHT + timedelta(hours=3), MIDNIGHT + 2 * DAY, seed=1)
    eth = tape("ETH-USD", 500, MIDNIGHT, MIDNIGHT + timedelta(hours=29), seed=2)
    made = product_days(pl.concat([bars_of(eth), bars_of(btc)]))
    assert made.schema == frames.schema(PRODUCT_DAY)
    assert made.select("product_id", "day").rows() == [
        (product, MIDNIGHT + days * DAY) for product in ("BTC-USD", "ETH-USD") for days in (0, 1)
    ]
    for row in made.iter_rows(named=True):
        whole = btc if row["product_id"] == "BTC-USD" else eth
        own = [trade for trade in whole if row["day"] <= trade["event_ts"] < row["day"] + DAY]
        prices = [trade["price"] for trade in own]
        assert (row["open"], row["high"], row["low"], row["close"]) == (
            *(prices[0], max(prices), min(prices), prices[-1]),
        )
        assert row["volume"] == sum(trade["size"] for trade in own)
        assert row["trade_count"] == len(own)
        last_of_five = {int(trade["event_ts"].timestamp()) // 300: trade["price"] for trade in own}
        moves = [math.log(b) - math.log(a) for a, b in pairwise(last_of_five.values())]
        assert row["volatility"] == pytest.approx(math.sqrt(math.fsum(move * move for move in moves)), rel=1e-9)
        begin, end = (int(moment.timestamp()) // 60 for moment in (row["day"], row["day"] + DAY))
        touched = set()
        for one, other in pairwise(whole):
            if other["trade_id"] > one["trade_id"] + 1:
                touched |= set(range(*(int(t["event_ts"].timestamp()) // 60 + n for n, t in enumerate((one, other)))))
        assert row["gap_minutes"] == len({minute for minute in touched if begin <= minute < end}) > 0
        first_hour, last_hour = (int(trade["event_ts"].timestamp()) // 3600 for trade in (own[0], own[-1]))
        assert row["hours"] == last_hour - first_hour + 1
        latest = min(THROUGH, whole[-1]["event_ts"]).timestamp() // 3600
        assert row["complete_hours"] == len([hour for hour in range(first_hour, last_hour + 1) if hour + 1 <= latest])
        assert row["is_complete"] == (row["day"] == MIDNIGHT)


def test_a_day_with_one_trade_or_none_has_no_volatility() -> None:
    one = tape("BTC-USD", 1, MIDNIGHT + timedelta(hours=1), MIDNIGHT + timedelta(hours=1, seconds=0.5), seed=3)
    later = one[0] | {"trade_id": 2, "event_ts": MIDNIGHT + 2 * DAY + timedelta(hours=1)}
    made = product_days(bars_of([*one, later]))
    assert made.select("trade_count", "volatility", "close").rows() == [(1, None, one[0]["price"]), (0, None, None)]


def test_no_bars_are_no_days_and_a_day_needs_its_one_day_bar() -> None:
    assert product_days(frames.empty(BARS)).is_empty()
    held = bars_of(tape("BTC-USD", 1, MIDNIGHT, MIDNIGHT + timedelta(hours=3), seed=4))
    daily = held.filter(pl.col("interval") == "1d")
    for wrong in (held.filter(pl.col("interval") != "1d"), pl.concat([held, daily])):
        with pytest.raises(KernelError, match="its day bar"):
            product_days(wrong)
