"""Windows of the last w trades, each summed by the same tree whatever row the frame begins at.

A rolling sum that adds the new row and takes the oldest away drifts, and depends on where its chunk began. Here a
window is put together from blocks of 1, 2, 4, … rows: the block of 2k rows that ends at t is the block of k that ends
at t and the block of k that ends at t − k. A window of 500 is six blocks, 256 + 128 + 64 + 32 + 16 + 4, newest first.
So a value is a function of its window's rows alone, to the last bit, and its rounding error grows with log₂ w, not
with w or with the length of the tape. Sums of integers and extremes have no rounding: those are Polars' own rolling
functions.

A column's window is asked for by an expression (`total("size_units", 50)`); the kernel finds the names that its
expressions use, and `compute` makes just those. Columns may be null at their beginning alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl

from marketflow.errors import KernelError
from marketflow.features.trades.amounts import UNIT_OF, double

Columns = tuple[pl.Series, ...]
# two neighbouring stretches of rows (newer, older) and how many rows each holds to the stretch of both
Merge = Callable[[Columns, Columns, int, int], Columns]
_NAME = re.compile(r"(?P<kind>\w+)\((?P<columns>[\w, ]+)\) over (?P<window>\d+)(?: decaying (?P<decay>[0-9.e-]+))?")


def total(column: str, window: int) -> pl.Expr:
    """Σ of the column over the last `window` trades."""
    return pl.col(f"total({column}) over {window}")


def lowest(column: str, window: int) -> pl.Expr:
    """Its smallest value there."""
    return pl.col(f"lowest({column}) over {window}")


def highest(column: str, window: int) -> pl.Expr:
    """Its largest value there."""
    return pl.col(f"highest({column}) over {window}")


def squares(column: str, window: int) -> pl.Expr:
    """Σ (x − mean)² over the last `window` trades of a column of units, from neighbouring stretches."""
    return pl.col(f"products({column}, {column}) over {window}")


def products(x: str, y: str, window: int) -> pl.Expr:
    """Σ (x − mean x)(y − mean y) over the last `window` trades of columns of units (Chan, Golub, LeVeque 1979)."""
    return pl.col(f"products({x}, {y}) over {window}")


def lag(weight: str, column: str, window: int) -> pl.Expr:
    """Σ weight·(x − x of the newest trade) over the last `window` trades, x a column of units."""
    return pl.col(f"lag({weight}, {column}) over {window}")


def decayed(column: str, window: int, decay: float) -> pl.Expr:
    """Σ decay^i · x of i trades ago, i = 0 … window − 1."""
    return pl.col(f"decayed({column}) over {window} decaying {decay!r}")


def compute(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """The frame with the windows of these names as columns; each is null until its window is full."""
    asked: dict[tuple[str, str, str | None], dict[int, str]] = {}
    for name in names:
        found = _NAME.fullmatch(name)
        if found is None:
            raise KernelError(f"{name!r} is neither a column of the tape nor a window")
        key = (found["kind"], found["columns"], found["decay"])
        asked.setdefault(key, {})[int(found["window"])] = name
    made = []
    for (kind, columns, decay), by_window in asked.items():
        inputs = columns.split(", ")
        if exact := _exactly(kind, frame[inputs[0]]):
            made += [exact(window).alias(name) for window, name in by_window.items()]
            continue
        begin, merge = _KINDS[kind](frame, inputs) if decay is None else _decaying(frame, inputs, float(decay))
        for window, series in _windows(begin, merge, sorted(by_window)).items():
            made.append(_padded(series[-1], frame.height).alias(by_window[window]))
    return frame.with_columns(made)


def _exactly(kind: str, column: pl.Series) -> Callable[[int], pl.Series] | None:
    """Polars' own rolling function where its answer cannot depend on where the frame begins: extremes, integers."""
    if kind == "lowest":
        return column.rolling_min
    if kind == "highest":
        return column.rolling_max
    if kind == "total" and column.dtype.is_integer():
        return column.rolling_sum
    return None


def _windows(rows: Columns, merge: Merge, windows: list[int]) -> dict[int, Columns]:
    """Every window's columns, as long as the rows that have a full one."""
    null_count = max(column.null_count() for column in rows)
    rows = tuple(column.slice(null_count) for column in rows)
    height = len(rows[0])
    blocks, size = {1: rows}, 1
    while size * 2 <= min(windows[-1], height):
        longer, count = blocks[size], height - 2 * size + 1
        blocks[2 * size] = merge(_cut(longer, size, count), _cut(longer, 0, count), size, size)
        size *= 2
    found = {}
    for window in windows:
        count = height - window + 1
        if count <= 0:
            found[window] = tuple(column.clear() for column in rows)
            continue
        whole, covered = None, 0
        for block in sorted(blocks, reverse=True):
            if window & block:
                # the block ends `covered` trades before the window does
                part = _cut(blocks[block], window - covered - block, count)
                whole = part if whole is None else merge(whole, part, covered, block)
                covered += block
        assert whole is not None
        found[window] = whole
    return found


def _cut(columns: Columns, start: int, count: int) -> Columns:
    return tuple(column.slice(start, count) for column in columns)


def _padded(series: pl.Series, height: int) -> pl.Series:
    """Nulls before it, so that it ends with the frame."""
    return pl.repeat(None, height - len(series), dtype=series.dtype, eager=True).append(series).rechunk()


Way = tuple[Columns, Merge]


def _sums(frame: pl.DataFrame, names: Sequence[str]) -> Way:
    return (frame[names[0]],), lambda newer, older, new, old: (newer[0] + older[0],)


def _decaying(frame: pl.DataFrame, names: Sequence[str], decay: float) -> Way:
    return (frame[names[0]],), lambda newer, older, new, old: (newer[0] + older[0] * decay**new,)


def _comoments(frame: pl.DataFrame, names: Sequence[str]) -> Way:
    """State: both columns at the newest trade, Σ (x − newest x) and the same of y, Σ (x − mean x)(y − mean y).

    All is told from the stretch's own newest trade, so that nothing far from the stretch costs a digit.
    """
    if names[0] == names[1]:
        return _squares(frame, names[0])
    x_apart, y_apart = (_apart(frame, name) for name in names)
    zeros = sum(((frame[name] - frame[name]).cast(pl.Float64) for name in names), pl.Series(np.zeros(frame.height)))

    def merge(newer: Columns, older: Columns, new: int, old: int) -> Columns:
        dx, dy = x_apart(older[0], newer[0]), y_apart(older[1], newer[1])
        x_means, y_means = (
            older[place] / float(old) + d - newer[place] / float(new) for place, d in ((2, dx), (3, dy))
        )
        return (
            *(newer[0], newer[1]),
            newer[2] + older[2] + dx * float(old),
            newer[3] + older[3] + dy * float(old),
            newer[4] + older[4] + x_means * y_means * (new * old / (new + old)),
        )

    return (frame[names[0]], frame[names[1]], zeros, zeros, zeros), merge


def _squares(frame: pl.DataFrame, name: str) -> Way:
    """`_comoments` of a column with itself, to the last bit, for half the work."""
    apart = _apart(frame, name)
    zeros = (frame[name] - frame[name]).cast(pl.Float64)

    def merge(newer: Columns, older: Columns, new: int, old: int) -> Columns:
        d = apart(older[0], newer[0])
        means = older[1] / float(old) + d - newer[1] / float(new)
        squared = newer[2] + older[2] + means * means * (new * old / (new + old))
        return newer[0], newer[1] + older[1] + d * float(old), squared

    return (frame[name], zeros, zeros), merge


def _lags(frame: pl.DataFrame, names: Sequence[str]) -> Way:
    """State: weights, the newest value, Σ weight·(x − newest x)."""
    apart = _apart(frame, names[1])

    def merge(newer: Columns, older: Columns, new: int, old: int) -> Columns:
        behind = older[2] + older[0] * apart(older[1], newer[1])
        return newer[0] + older[0], newer[1], newer[2] + behind

    return (frame[names[0]], frame[names[1]], frame[names[0]] * 0.0), merge


def _apart(frame: pl.DataFrame, name: str) -> Callable[[pl.Series, pl.Series], pl.Series]:
    """The exact difference of two rows of a column of units, as a double."""
    parts = frame[f"parts_of_{UNIT_OF[name]}"]

    def apart(one: pl.Series, other: pl.Series) -> pl.Series:
        return double(one - other, parts.slice(0, len(one)))

    return apart


_KINDS: dict[str, Callable[[pl.DataFrame, Sequence[str]], Way]] = {
    "total": _sums,
    "products": _comoments,
    "lag": _lags,
}
