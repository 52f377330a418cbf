"""What is to be foretold. A target reads the future and nothing may train on one as a feature."""

from __future__ import annotations

import polars as pl

from marketflow.contracts.columns import Type
from marketflow.features.trades.amounts import price, quotient
from marketflow.features.trades.feature import feature
from marketflow.features.trades.windows import total

HORIZONS = (10, 50)


def _later(horizon: int) -> pl.Expr:
    """The price so many trades later, null where one of them comes after a hole."""
    holes = total("gap", horizon).shift(-horizon)
    return pl.when(holes == 0).then(pl.col("price_units").shift(-horizon))


@feature(
    "future_price_{w}", group="target", inputs=["price", "trade_id"], windows=HORIZONS, lookback=0, horizon=lambda w: w
)
def future_price(horizon: int) -> pl.Expr:
    """Price {w} trades later.

    Formula: price(t+{w}).
    Unit: quote currency.
    Null: until {w} more trades exist, and where a hole lies between.
    Source: by definition.
    """
    return price(_later(horizon))


@feature(
    "target_return_{w}", group="target", inputs=["price", "trade_id"], windows=HORIZONS, lookback=0, horizon=lambda w: w
)
def target_return(horizon: int) -> pl.Expr:
    """Return over the next {w} trades.

    Formula: 100·(price(t+{w}) / price(t) − 1).
    Unit: percent.
    Null: as future_price_{w}.
    Source: by definition.
    """
    return 100 * quotient(price(_later(horizon) - pl.col("price_units")), price(pl.col("price_units")))


@feature(
    "target_direction_{w}",
    group="target",
    inputs=["price", "trade_id"],
    windows=HORIZONS,
    lookback=0,
    horizon=lambda w: w,
    type=Type.INTEGER,
)
def target_direction(horizon: int) -> pl.Expr:
    """Whether the price is higher (1) or lower (0) {w} trades later.

    Formula: 1 where price(t+{w}) > price(t), 0 where it is lower.
    Unit: none.
    Null: as future_price_{w}, and where the price is the same.
    Source: by definition.
    """
    change = _later(horizon) - pl.col("price_units")
    return pl.when(change != 0).then((change > 0).cast(pl.Int32))
