"""Which rows and which columns may be learned from: final rows with a target, and features that know no future."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from marketflow.contracts.columns import Type
from marketflow.errors import InputError
from marketflow.features.trades.catalogue import CATALOGUE, FEATURES
from marketflow.features.trades.targets import HORIZONS

# a price itself names the moment it was paid at: a tree would learn the day by heart
_LEVELS = ("ma_", "ema_", "min_", "max_", "vwap_")
_LEVEL_NAMES = ("best_bid", "best_ask", "mid_price", "microprice")
_NEEDED = ("venue", "product_id", "trade_id", "event_ts", "is_final", "price_change_1", "is_buy")

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def usable_features() -> tuple[str, ...]:
    """Every feature of the catalogue but price levels, calendar and text: what says how the market is, not when."""
    return tuple(
        one.name
        for one in FEATURES
        if one.group != "time"
        and one.type is not Type.STRING
        and not one.name.startswith(_LEVELS)
        and one.name not in _LEVEL_NAMES
    )


def checked_features(names: Sequence[str]) -> tuple[str, ...]:
    """The names, where nothing is wrong with them.

    Raises:
        InputError: one reads the future, is no number or no feature of the catalogue; or there is none at all.
    """
    if not names:
        raise InputError("a forecast needs at least one feature")
    for name in names:
        one = CATALOGUE.get(name)
        if one is None:
            raise InputError(f"{name} is no feature of the catalogue (`marketflow features list`)")
        if one.reads_future:
            raise InputError(f"{name} reads {one.horizon} trades ahead: it is a target, and nothing may learn from it")
        if one.type is Type.STRING:
            raise InputError(f"{name} is text, which is no feature to train on")
    return tuple(names)


def columns(horizon: int, features: Sequence[str]) -> tuple[str, ...]:
    """What is read of gold.trade_features."""
    return tuple(dict.fromkeys((*_NEEDED, target(horizon), f"target_return_{horizon}", *features)))


def target(horizon: int) -> str:
    """The column to be foretold.

    Raises:
        InputError: there is no such horizon.
    """
    if horizon not in HORIZONS:
        raise InputError(f"horizon {horizon}: there is {' and '.join(str(one) for one in HORIZONS)} (trades ahead)")
    return f"target_direction_{horizon}"


@dataclass(frozen=True, slots=True)
class Rows:
    """One product's rows in order of trade_id: features (null is NaN), whether the price rose, and the last direction.

    `last_up` is whether the newest change of the price up to the row was upward (True before the first change), `buy`
    whether its taker bought. `settled`: the next trade has a later event_ts. An order that eats through the book is
    many trades of one instant, within which the direction is decided already: nobody could act on any but the last.
    `move_bps` is how far the price went over the horizon, in basis points, never negative. `not_final` and
    `without_target` count the rows that were left out.
    """

    venue: str
    product_id: str
    horizon: int
    features: tuple[str, ...]
    matrix: Floats
    up: Flags
    last_up: Flags
    buy: Flags
    settled: Flags
    move_bps: Floats
    first_event_ts: datetime
    last_event_ts: datetime
    not_final: int
    without_target: int

    def __len__(self) -> int:
        """How many rows."""
        return len(self.up)


def choose(frame: pl.DataFrame, horizon: int, features: Sequence[str] | None = None) -> Rows:
    """Rows with a target that will not change any more.

    Raises:
        InputError: no rows, none final, none with a target, two products, a column that is missing, a feature that
            reads the future; a trade twice, a null in what orders and describes a trade, a direction that is none.
    """
    names = checked_features(usable_features() if features is None else features)
    goal = target(horizon)
    missing = [name for name in columns(horizon, names) if name not in frame.columns]
    if missing:
        raise InputError(f"no column {', '.join(missing)}; rows of gold.trade_features or of `features build` have it")
    venue, product_id = _market(frame)
    _check(frame, goal, f"{venue} {product_id}")
    final, kept = _learnable(_in_order(frame), goal, f"{venue} {product_id}")
    matrix = kept.select(pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in names).to_numpy(order="c")
    times: Any = kept.select(first=pl.col("event_ts").min(), last=pl.col("event_ts").max()).row(0)
    return Rows(
        venue=venue,
        product_id=product_id,
        horizon=horizon,
        features=names,
        matrix=matrix,
        up=kept[goal].to_numpy() == 1,
        last_up=kept["last_up"].to_numpy(),
        buy=kept["is_buy"].to_numpy(),
        settled=kept["settled"].to_numpy(),
        move_bps=(kept[f"target_return_{horizon}"].abs() * 100).to_numpy(),
        first_event_ts=times[0],
        last_event_ts=times[1],
        not_final=frame.height - final.height,
        without_target=final.height - kept.height,
    )


def _check(frame: pl.DataFrame, goal: str, market: str) -> None:
    """Rows as the table has them: doubled ones would pass for evidence."""
    for name in ("trade_id", "event_ts", "is_final", "is_buy"):
        if frame[name].null_count():
            raise InputError(f"{name} is null in {frame[name].null_count():,} rows of {market}")
    doubled = frame.height - frame["trade_id"].n_unique()
    if doubled:
        raise InputError(f"{doubled:,} rows of {market} tell of a trade that another row tells of already")
    other = frame.filter(~pl.col(goal).is_in([0, 1]))
    if other.height:
        raise InputError(f"{goal} is {other.item(0, goal)} in {other.height:,} rows of {market}: it is 0 or 1, or null")


def _learnable(ordered: pl.DataFrame, goal: str, market: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The final rows, and those of them that have a target."""
    final = ordered.filter(pl.col("is_final"))
    if final.is_empty():
        raise InputError(f"none of the {ordered.height:,} rows of {market} is final: their targets are not known yet")
    kept = final.filter(pl.col(goal).is_not_null())
    if kept.is_empty():
        raise InputError(
            f"none of the {final.height:,} final rows of {market} has {goal}: the price never moved, or there are holes"
        )
    return final, kept


def _in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """By trade_id, with what only the neighbours of a row tell."""
    change = pl.col("price_change_1")
    return frame.sort("trade_id").with_columns(
        last_up=pl.when(change != 0).then(change > 0).forward_fill().fill_null(True),
        settled=(pl.col("event_ts").shift(-1) > pl.col("event_ts")).fill_null(True),
    )


def _market(frame: pl.DataFrame) -> tuple[str, str]:
    found = frame.select("venue", "product_id").unique().sort("venue", "product_id").rows()
    if not found:
        raise InputError("there are no rows")
    if len(found) > 1:
        listed = ", ".join(f"{venue} {product}" for venue, product in found)
        raise InputError(f"a forecast is of one market; here are {listed}: name one by venue and product")
    return str(found[0][0]), str(found[0][1])
