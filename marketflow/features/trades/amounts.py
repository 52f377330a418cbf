"""Prices and sizes as whole numbers, and the one way in which such a number becomes a double.

The tape keeps amounts as whole numbers of as many places as its own need, so that sums and differences are exact. What
is made of a row must not depend on how many that are: a double is the one nearest to the decimal, whichever whole
number says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import polars as pl

from marketflow.contracts.columns import MONEY_SCALE

# which of the tape's two units a column of whole numbers is in
UNIT_OF = {
    **dict.fromkeys(("price_units", "change_units", "bid_units", "ask_units"), "price"),
    **dict.fromkeys(("size_units", "bought_units", "signed_units", "bid_size_units", "ask_size_units"), "size"),
}
# sums of so many of the largest amount stay within a column's type
SUMMED = 1024
_EXACT = 2**53
# eight places are as many as most venues tell
_USUAL = 10 ** (MONEY_SCALE - 8)


def double(units: pl.Series, parts: pl.Series) -> pl.Series:
    """A whole number of units as a double; `parts` has in every row how many of them are 1.

    One division of two doubles that are exact rounds once, to the nearest; it is by a column, since Polars divides by a
    scalar by multiplying with its inverse. A number that no double holds exactly is told anew in fewer places where it
    has fewer, and where it has not, as its whole part and then its fraction.
    """
    lowest, highest = cast("int | None", units.min()), cast("int | None", units.max())
    if lowest is None or highest is None or (lowest > -_EXACT and highest < _EXACT):
        return units.cast(pl.Float64) / parts
    return _in_fewer_places(units.cast(pl.Int128), 10**MONEY_SCALE // int(parts[0]))


def _in_fewer_places(units: pl.Series, spare: int) -> pl.Series:
    whole = pl.col("units") * pl.lit(spare, dtype=pl.Int128)
    frame = units.alias("units").to_frame().select(units=whole).with_columns(size=pl.col("units").abs())
    one = pl.lit(10**MONEY_SCALE, dtype=pl.Int128)
    rest = (pl.col("size") % one).cast(pl.Float64) / pl.col("all_parts")
    found = (pl.col("size") // one).cast(pl.Float64) + rest
    frame = frame.with_columns(pl.Series("all_parts", np.full(len(units), 10.0**MONEY_SCALE)))
    frame = frame.with_columns(found=found)
    for places in range(MONEY_SCALE, -1, -2):
        unit = pl.lit(10 ** (MONEY_SCALE - places), dtype=pl.Int128)
        parts = pl.Series("parts", np.full(len(units), 10.0**places))
        is_exact = (pl.col("size") % unit == 0) & (pl.col("size") // unit < _EXACT)
        told = (pl.col("size") // unit).cast(pl.Float64) / pl.col("parts")
        frame = frame.with_columns(parts).with_columns(found=pl.when(is_exact).then(told).otherwise("found"))
    signed = pl.when(pl.col("units") < 0).then(-pl.col("found")).otherwise("found")
    return frame.select(signed.alias(units.name)).to_series()


def _double(inputs: Sequence[pl.Series]) -> pl.Series:
    return double(inputs[0], inputs[1])


def price(units: pl.Expr) -> pl.Expr:
    """Units of a price as quote currency."""
    return pl.map_batches([units, pl.col("parts_of_price")], _double, return_dtype=pl.Float64)


def size(units: pl.Expr) -> pl.Expr:
    """Units of a size as base currency."""
    return pl.map_batches([units, pl.col("parts_of_size")], _double, return_dtype=pl.Float64)


def quotient(dividend: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    """One double over the other; null where the divisor is zero."""
    return pl.when(divisor != 0).then(dividend / divisor)


def reduced(frame: pl.DataFrame, name: str, columns: tuple[str, ...]) -> pl.DataFrame:
    """Whole numbers of 10^-18 as those of as many places as they need, in 64 bits where sums of them fit there.

    Adds `parts_of_<name>`, what `double` takes.
    """
    largest = max(value or 0 for value in frame.select(pl.col(*columns).abs().max()).row(0))
    spare = 1
    # nearly always: the rest is 64-bit work, many times as fast
    if largest // _USUAL < 2**63 and _divides(frame, columns, _USUAL):
        spare = _USUAL
        frame = frame.with_columns((pl.col(*columns) // pl.lit(spare, dtype=pl.Int128)).cast(pl.Int64))
    further = _spare(frame, columns, MONEY_SCALE - len(str(spare)) + 1)
    spare *= further
    kind = pl.Int64 if largest // spare * SUMMED < 2**63 else pl.Int128
    units = [(pl.col(one) // pl.lit(further, dtype=frame.schema[one])).cast(kind) for one in columns]
    return frame.with_columns(*units, pl.Series(f"parts_of_{name}", np.full(frame.height, 10.0**MONEY_SCALE / spare)))


def _spare(frame: pl.DataFrame, columns: tuple[str, ...], most: int) -> int:
    """The largest power of ten, up to 10^most, that divides all of them."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _divides(frame, columns, 10**middle) else (low, middle - 1)
    return int(10**low)


def _divides(frame: pl.DataFrame, columns: tuple[str, ...], number: int) -> bool:
    return all(
        frame.select((pl.col(one) % pl.lit(number, dtype=frame.schema[one]) == 0).all() for one in columns).row(0)
    )
