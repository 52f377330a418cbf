"""Short-term measures of irregular price observations: change, mean, exponential mean, volatility.

Every measure of a row is summed anew from the observations inside that row's own window, newest first. There is no
running sum, so a value depends on the rows within `LOOKBACK_S` before it and on nothing else: the stream, the hourly
batch and a backfill, which start at different rows, agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from marketflow.contracts.gold import PRICE_METRICS
from marketflow.errors import KernelError
from marketflow.features import frames

EMA_HALF_LIFE_S = 61.8
"""2^(−30/61.8) = 5/7 to 5e-6: at a 30 s step the weights are those of the classical EMA of span 6 (α = 2/7)."""
LOOKBACK_S = 1236
"""Twenty half-lives: what lies further back would weigh less than 1e-6 of the newest observation."""
WINDOW_S = 300
SERIES = ("source", "asset_id", "vs_currency")
MICROSECONDS = 1_000_000

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def price_metrics(observations: pl.DataFrame, *, tolerance_s: int = 90) -> pl.DataFrame:
    """Measures of each observation p(t), t = last_updated, within its series (source, asset_id, vs_currency).

    change_1min, change_5min = 100·(p(t)/p(s) − 1), s the latest observation at or before t − 60 s (t − 300 s) and not
      before that moment − `tolerance_s`. Unit: percent. Null where there is no such s.
    sma_5m = mean of p over (t − 300 s, t]. Unit: vs_currency. Never null: the window holds t itself.
    ema_3m = Σ w·p / Σ w over (t − 1236 s, t], w = 2^(−age/61.8 s). Unit: vs_currency. Never null.
    volatility_5m = sqrt(Σ (p − mean)² / (n − 1)) over (t − 300 s, t]. Unit: vs_currency. Null where n < 2.
    realized_volatility_5m = sqrt(Σ ln(p_i/p_{i−1})²), both p in (t − 300 s, t]. Unit: none. Null where n < 2.
    observations_5m = n, the observations in (t − 300 s, t]. Unit: count.

    Sources: pandas' `ewm(halflife, times)` for ema_3m, truncated after twenty half-lives; Andersen and Bollerslev
    (1998) for realized volatility; the rest by definition. Inputs are the columns of silver.asset_prices that
    gold.price_metrics carries, in any order, the key unique. One row comes back for every observation, sorted by key;
    a row is final where the input holds all observations of the `LOOKBACK_S` before it. The caller cuts.

    Raises:
        KernelError: a key occurs twice, a price is null or not above zero, or `tolerance_s` reaches past `LOOKBACK_S`.
    """
    if not 0 <= tolerance_s <= LOOKBACK_S - WINDOW_S:
        raise KernelError(
            f"tolerance_s is {tolerance_s}: it must lie in 0 … {LOOKBACK_S - WINDOW_S}, the lookback's end"
        )
    rows = observations.rename({"last_updated": "ts"}).sort(*SERIES, "ts")
    series = rows.select(pl.struct(SERIES).rle_id().cast(pl.Int64)).to_series().to_numpy()
    t = rows["ts"].cast(frames.TIMESTAMP).to_physical().to_numpy()
    p = rows["price"].cast(pl.Float64).to_numpy()
    bounds = np.flatnonzero(np.diff(series, prepend=-1, append=-1)).astype(np.int64)
    _check(rows, t, p, series)

    measures = {
        "change_1min": _change(t, p, bounds, 60, tolerance_s),
        "change_5min": _change(t, p, bounds, WINDOW_S, tolerance_s),
        "ema_3m": pl.Series(_exponential_mean(t, p, _window_starts(t, bounds, LOOKBACK_S))),
        **_five_minutes(p, _window_starts(t, bounds, WINDOW_S)),
    }
    return frames.conform(rows.with_columns(**measures), PRICE_METRICS)


def _check(rows: pl.DataFrame, t: Integers, p: Floats, series: Integers) -> None:
    """Refuse what silver never holds: with a doubled key or a price of zero no measure is defined."""
    doubled = np.flatnonzero((t[1:] == t[:-1]) & (series[1:] == series[:-1]))
    if doubled.size:
        raise KernelError(f"observation {_named(rows, int(doubled[0]))} occurs twice")
    wrong = np.flatnonzero(~(p > 0))
    if wrong.size:
        raise KernelError(f"observation {_named(rows, int(wrong[0]))} has a price that is null or not above zero")


def _named(rows: pl.DataFrame, position: int) -> str:
    return " / ".join(str(value) for value in rows.select(*SERIES, "ts").row(position))


def _last_at_or_before(t: Integers, bounds: Integers, age_s: int) -> Integers:
    """For each row the position of its series' last row at or before t − `age_s`; one before the series if none."""
    found = np.empty(t.size, dtype=np.int64)
    for begin, end in pairwise(bounds):
        own = t[begin:end]
        found[begin:end] = begin - 1 + np.searchsorted(own, own - age_s * MICROSECONDS, side="right")
    return found


def _window_starts(t: Integers, bounds: Integers, seconds: int) -> Integers:
    """For each row the position of the first row of its series in (t − `seconds`, t]."""
    return _last_at_or_before(t, bounds, seconds) + 1


def _change(t: Integers, p: Floats, bounds: Integers, age_s: int, tolerance_s: int) -> pl.Series:
    """100·(p(t)/p(s) − 1) in percent; null where s is missing or older than the tolerance allows."""
    s = _last_at_or_before(t, bounds, age_s)
    series_begin = np.repeat(bounds[:-1], np.diff(bounds))
    known = s >= series_begin
    s = np.where(known, s, 0)
    known &= t - t[s] <= (age_s + tolerance_s) * MICROSECONDS
    return _nullable(100.0 * (p / p[s] - 1.0), known)


def _lags(window_starts: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Pairs (rows, each row's neighbour 1, 2, … before it) while that neighbour is inside the row's window.

    Adding up in this order gives each row the same additions in the same order wherever the frame begins.
    """
    rows = np.arange(window_starts.size, dtype=np.int64)
    lag = 0
    while True:
        lag += 1
        rows = rows[rows - lag >= window_starts[rows]]
        if not rows.size:
            return
        yield rows, rows - lag


def _exponential_mean(t: Integers, p: Floats, window_starts: Integers) -> Floats:
    """Σ w·p / Σ w as p(t) + Σ w·(p − p(t)) / Σ w: a constant price gives itself, to the last bit."""
    weighted = np.zeros(p.size)
    weights = np.ones(p.size)
    for rows, earlier in _lags(window_starts):
        weight = np.exp2((t[earlier] - t[rows]) / (EMA_HALF_LIFE_S * MICROSECONDS))
        weighted[rows] += weight * (p[earlier] - p[rows])
        weights[rows] += weight
    return p + weighted / weights


def _five_minutes(p: Floats, window_starts: Integers) -> dict[str, pl.Series]:
    """Mean, deviation, realized volatility and count over each row's window; differences to p(t) keep the digits."""
    count = np.arange(p.size) - window_starts + 1
    log_return_squared = np.zeros(p.size)
    log_return_squared[1:] = np.log(p[1:] / p[:-1]) ** 2  # across two series it is never inside a window
    offsets = np.zeros(p.size)
    realized = np.zeros(p.size)
    for rows, earlier in _lags(window_starts):
        offsets[rows] += p[earlier] - p[rows]
        realized[rows] += log_return_squared[earlier + 1]
    offset = offsets / count
    squares = offset**2  # the row's own deviation from the mean
    for rows, earlier in _lags(window_starts):
        squares[rows] += (p[earlier] - p[rows] - offset[rows]) ** 2
    enough = count >= 2
    return {
        "sma_5m": pl.Series(p + offset),
        "volatility_5m": _nullable(np.sqrt(squares / np.maximum(count - 1, 1)), enough),
        "realized_volatility_5m": _nullable(np.sqrt(realized), enough),
        "observations_5m": pl.Series(count),
    }


def _nullable(values: Floats, known: Flags) -> pl.Series:
    """`values` where `known`, null elsewhere (NaN is no null in Polars)."""
    return pl.select(pl.when(pl.Series(known)).then(pl.Series(values))).to_series()
