"""A product's day in one row, from the bars of that day."""

from __future__ import annotations

import polars as pl

from marketflow.contracts.gold import PRODUCT_DAY
from marketflow.errors import KernelError
from marketflow.features import frames

INTERVALS = ("1m", "5m", "1h", "1d")
"""The bars that a day is made of."""
_OF_THE_DAY = (
    *("open", "high", "low", "close", "volume", "notional", "vwap", "trade_count", "buy_volume", "sell_volume"),
    "is_complete",
)


def product_days(bars: pl.DataFrame) -> pl.DataFrame:
    """One row per venue, product_id and day of the bars (gold.bars' columns, INTERVALS), sorted by these.

    open, high, low, close, volume, notional, vwap, trade_count, buy_volume, sell_volume, is_complete = the day bar's.
    volatility = √Σ ln(c_i / c_(i−1))², c the closes in order of time of the day's five-minute bars with a trade.
      Without unit. Null with fewer than two of them. Source: realized volatility, Andersen and Bollerslev (1998).
    gap_minutes = one-minute bars with has_gap; hours = hourly bars; complete_hours = those of them with is_complete.

    Raises:
        KernelError: bars of a day without its day bar, or two of it.
    """
    key = ["venue", "product_id", "day"]
    dated = bars.with_columns(day=pl.col("open_ts").dt.truncate("1d"))
    whole = dated.filter(pl.col("interval") == "1d")
    told = dated.select(key).unique().join(whole.select(key), on=key, how="left", maintain_order="left")
    if whole.height != whole.select(key).n_unique() or told.join(whole, on=key, how="anti").height:
        raise KernelError("each day of each product has bars of many intervals, and one of them is its day bar")
    parts = [
        _of(dated, "5m").filter(pl.col("trade_count") > 0).sort(*key, "open_ts").group_by(key).agg(volatility=_moves()),
        _of(dated, "1m").group_by(key).agg(gap_minutes=pl.col("has_gap").sum().cast(pl.Int32)),
        _of(dated, "1h")
        .group_by(key)
        .agg(hours=pl.len().cast(pl.Int32), complete_hours=pl.col("is_complete").sum().cast(pl.Int32)),
    ]
    result = whole.select(*key, *_OF_THE_DAY)
    for part in parts:
        result = result.join(part, on=key, how="left")
    counts = ("gap_minutes", "hours", "complete_hours")
    return frames.conform(result.with_columns(pl.col(counts).fill_null(0)).sort(key), PRODUCT_DAY)


def _of(bars: pl.DataFrame, interval: str) -> pl.DataFrame:
    return bars.filter(pl.col("interval") == interval)


def _moves() -> pl.Expr:
    """Realized volatility of a group's closes; null without a move."""
    moves = pl.col("close").cast(pl.Float64).log().diff()
    return pl.when(pl.len() > 1).then((moves * moves).sum().sqrt())
