"""Whether the venue's ids say that a trade is missing."""

from __future__ import annotations

import polars as pl

from marketflow.contracts.columns import Type
from marketflow.features.trades.feature import feature
from marketflow.features.trades.windows import total


@feature("gap_before", group="integrity", inputs=["trade_id"], lookback=1, type=Type.BOOLEAN)
def gap_before() -> pl.Expr:
    """Whether trades are missing between the one before and this one.

    Formula: trade_id(t) − trade_id(t−1) > 1.
    Unit: none.
    Null: for a product's first trade.
    Source: the venue numbers the trades of a product one by one.
    """
    return pl.col("gap") > 0


@feature("gaps_in_window_500", group="integrity", inputs=["trade_id"], lookback=500, type=Type.INTEGER)
def gaps_in_window() -> pl.Expr:
    """How many holes lie before or among the last 500 trades.

    Formula: count of gap_before over trades t−499 … t.
    Unit: count.
    Null: until 501 trades exist.
    Source: by definition.
    """
    return total("gap", 500)
