"""gold.trade_features of one product: what stream, batch, backfill and `features build` all call."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from marketflow.features import frames
from marketflow.features.trades import windows
from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.features.trades.feature import Feature
from marketflow.features.trades.returns import macd
from marketflow.features.trades.tape import HORIZON, LOOKBACK, tape

# columns that are themselves made of windows, and that windows are made of
_DERIVED = {"macd": macd()}
# what a row says beside its features, as silver.trades has it
IDENTITY = {
    "venue": pl.String(),
    "product_id": pl.String(),
    "trade_id": pl.Int64(),
    "event_ts": frames.TIMESTAMP,
    "price": frames.MONEY,
    "size": frames.MONEY,
    "taker_side": pl.String(),
}


def trade_features(
    trades: pl.DataFrame, quotes: pl.DataFrame | None = None, *, features: Iterable[Feature] = CATALOGUE.values()
) -> pl.DataFrame:
    """Features and targets of each trade of one (venue, product_id), sorted by trade_id.

    `trades` and `quotes` have the columns of silver.trades and silver.quotes (TRADE_COLUMNS, QUOTE_COLUMNS), in any
    order. One row comes back for every trade: its identity, price, size and taker_side, every feature of the catalogue
    (a function's docstring gives formula, unit, null rule and source), and three that the caller decides by:
    `quote_is_later` (whether the last quote before it by sequence bears a later time, and is null for that), `history`
    (trades before it in `trades`, 500 at most) and `is_final` (whether 50 more trades are there, so that its targets
    will not change). A row is what it would be on the whole tape where `history` is 500 and `quotes` reach QUOTES_BACK
    further back. The caller cuts.

    Raises:
        KernelError: as `marketflow.features.trades.tape.tape`.
    """
    wanted = list(features)
    if trades.is_empty():
        return pl.DataFrame(schema=schema(wanted))
    frame = tape(trades, quotes)
    frame = _with_windows(frame, [feature.expression for feature in wanted])
    row = pl.int_range(pl.len(), dtype=pl.Int32)
    money = ("price", "size")
    return frame.select(
        *(pl.col(f"{name}_exact" if name in money else name).alias(name) for name in IDENTITY),
        *(one.expression.cast(frames.POLARS_TYPES[one.type]).alias(one.name) for one in wanted),
        quote_is_later="quote_is_later",
        history=row.clip(upper_bound=LOOKBACK),
        is_final=row + HORIZON < pl.len(),
    )


def schema(features: Iterable[Feature]) -> pl.Schema:
    """Columns and types of what `trade_features` gives for these features."""
    made = {one.name: frames.POLARS_TYPES[one.type] for one in features}
    return pl.Schema(
        IDENTITY | made | {"quote_is_later": pl.Boolean(), "history": pl.Int32(), "is_final": pl.Boolean()}
    )


def _with_windows(frame: pl.DataFrame, expressions: list[pl.Expr]) -> pl.DataFrame:
    """The frame with every window that the expressions name, those of derived columns last."""
    names = {name for expression in expressions for name in expression.meta.root_names()} - set(frame.columns)
    derived = {one for one in _DERIVED if any(f"({one})" in name or name == one for name in names)}
    if derived:
        made = [_DERIVED[one].alias(one) for one in sorted(derived)]
        frame = _with_windows(frame, made).with_columns(made)
    return windows.compute(frame, sorted(names - set(frame.columns)))
