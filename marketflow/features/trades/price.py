"""Where the price stands among the last trades' prices."""

from __future__ import annotations

import polars as pl

from marketflow.features.trades.amounts import price, quotient
from marketflow.features.trades.feature import feature
from marketflow.features.trades.tape import ago
from marketflow.features.trades.windows import decayed, highest, lowest, squares, total

WINDOWS = (10, 50, 100)
EMA_LENGTH = 500


def behind_price(span: int, length: int) -> pl.Expr:
    """Exponential mean of the last `length` prices less the price, from price changes alone: no digits cancel.

    mean − price(t) = −Σ_j change(t−j)·(q^(j+1) − q^length) / (1 − q^length), j = 0 … length − 2.
    """
    decay = 1 - 2 / (span + 1)
    least = decay**length
    since = price(pl.col("price_units") - ago("price_units", length - 1))
    weighed = decay * decayed("change", length - 1, decay) - least * since
    return -weighed / (1 - least)


@feature("ma_{w}_trades", group="price", inputs=["price"], windows=(*WINDOWS, 500), lookback=lambda w: w - 1)
def mean_price(window: int) -> pl.Expr:
    """Mean price of the last {w} trades.

    Formula: Σ price / {w} over trades t−{w}+1 … t.
    Unit: quote currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return price(total("price_units", window)) / window


@feature("min_{w}_trades", group="price", inputs=["price"], windows=WINDOWS, lookback=lambda w: w - 1)
def lowest_price(window: int) -> pl.Expr:
    """Lowest price of the last {w} trades.

    Formula: min price over trades t−{w}+1 … t.
    Unit: quote currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return price(lowest("price_units", window))


@feature("max_{w}_trades", group="price", inputs=["price"], windows=WINDOWS, lookback=lambda w: w - 1)
def highest_price(window: int) -> pl.Expr:
    """Highest price of the last {w} trades.

    Formula: max price over trades t−{w}+1 … t.
    Unit: quote currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return price(highest("price_units", window))


@feature("price_range_{w}", group="price", inputs=["price"], windows=WINDOWS, lookback=lambda w: w - 1)
def price_range(window: int) -> pl.Expr:
    """Width of the last {w} trades' prices.

    Formula: max price − min price over trades t−{w}+1 … t.
    Unit: quote currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return price(highest("price_units", window) - lowest("price_units", window))


@feature("price_position_{w}", group="price", inputs=["price"], windows=(*WINDOWS, 500), lookback=lambda w: w - 1)
def price_position(window: int) -> pl.Expr:
    """Where the price lies between the lowest (0) and the highest (1) of the last {w} trades.

    Formula: (price − min) / (max − min) over trades t−{w}+1 … t.
    Unit: none.
    Null: until {w} trades exist, and where all their prices are the same.
    Source: Lane (1984), the stochastic oscillator's %K, over trades and from 0 to 1.
    """
    low, high = lowest("price_units", window), highest("price_units", window)
    return quotient(price(pl.col("price_units") - low), price(high - low))


@feature("volatility_{w}", group="price", inputs=["price"], windows=(*WINDOWS, 500), lookback=lambda w: w - 1)
def volatility(window: int) -> pl.Expr:
    """Sample standard deviation of the last {w} trades' prices.

    Formula: sqrt(Σ (price − mean)² / ({w} − 1)) over trades t−{w}+1 … t.
    Unit: quote currency.
    Null: until {w} trades exist.
    Source: Chan, Golub and LeVeque (1979) for the summation.
    """
    return (squares("price_units", window) / (window - 1)).sqrt()


@feature("zscore_{w}", group="price", inputs=["price"], windows=(50, 100, 500), lookback=lambda w: w - 1)
def zscore(window: int) -> pl.Expr:
    """How many standard deviations the price lies above the mean of the last {w} trades.

    Formula: (price − mean) / sample standard deviation over trades t−{w}+1 … t.
    Unit: none.
    Null: until {w} trades exist, and where all their prices are the same.
    Source: by definition.
    """
    above = price(pl.col("price_units") * window - total("price_units", window)) / window
    deviation = (squares("price_units", window) / (window - 1)).sqrt()
    return pl.when(deviation > 0).then(above / deviation)


@feature("ema_{w}_trades", group="price", inputs=["price"], windows=WINDOWS, lookback=EMA_LENGTH - 1)
def exponential_mean_price(window: int) -> pl.Expr:
    """Exponential mean of span {w} over the last 500 trades' prices.

    Formula: Σ q^i·price(t−i) / Σ q^i, i = 0 … 499, q = 1 − 2/({w} + 1).
    Unit: quote currency.
    Null: until 500 trades exist.
    Source: pandas ewm(span={w}, adjust=True) over those 500 trades.
    """
    return pl.col("price") + behind_price(window, EMA_LENGTH)
