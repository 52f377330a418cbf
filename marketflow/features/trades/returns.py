"""How the price has moved over the last trades, and how much on the way."""

from __future__ import annotations

import polars as pl

from marketflow.features.trades.amounts import price, quotient
from marketflow.features.trades.feature import feature
from marketflow.features.trades.price import behind_price
from marketflow.features.trades.tape import ago
from marketflow.features.trades.windows import decayed, total

# MACD's slow mean takes 372 trades and its signal 128 of those: 499 trades in all
MACD_LENGTH, SIGNAL_LENGTH = 372, 128
RSI_LENGTH = 499


@feature("price_change_{w}", group="returns", inputs=["price"], windows=(1, 5, 10, 50, 100), lookback=lambda w: w)
def price_change(window: int) -> pl.Expr:
    """Change of the price over {w} trades.

    Formula: price(t) − price(t−{w}).
    Unit: quote currency.
    Null: until {w} + 1 trades exist.
    Source: by definition.
    """
    return price(pl.col("price_units") - ago("price_units", window))


@feature("return_{w}", group="returns", inputs=["price"], windows=(1, 5, 10, 50, 100), lookback=lambda w: w)
def simple_return(window: int) -> pl.Expr:
    """Return over {w} trades.

    Formula: 100·(price(t) / price(t−{w}) − 1).
    Unit: percent.
    Null: until {w} + 1 trades exist.
    Source: by definition.
    """
    before = ago("price_units", window)
    return 100 * quotient(price(pl.col("price_units") - before), price(before))


@feature("log_return_1", group="returns", inputs=["price"], lookback=1)
def log_return() -> pl.Expr:
    """Logarithmic return from the trade before.

    Formula: ln(price(t) / price(t−1)).
    Unit: none.
    Null: until 2 trades exist.
    Source: by definition.
    """
    return pl.col("log_return")


@feature("price_vs_ma_{w}", group="returns", inputs=["price"], windows=(10, 50, 100), lookback=lambda w: w - 1)
def price_against_mean(window: int) -> pl.Expr:
    """How far the price lies above the mean of the last {w} trades.

    Formula: 100·(price / ma_{w}_trades − 1).
    Unit: percent.
    Null: until {w} trades exist.
    Source: by definition.
    """
    summed = total("price_units", window)
    return 100 * quotient(price(pl.col("price_units") * window - summed), price(summed))


@feature("realized_volatility_{w}", group="returns", inputs=["price"], windows=(10, 50, 100, 500), lookback=lambda w: w)
def realized_volatility(window: int) -> pl.Expr:
    """Realized volatility of the last {w} logarithmic returns.

    Formula: sqrt(Σ ln(price(i) / price(i−1))²) over trades t−{w}+1 … t.
    Unit: none.
    Null: until {w} + 1 trades exist.
    Source: Andersen and Bollerslev (1998), in trade time.
    """
    return total("squared_return", window).sqrt()


@feature("rsi_14_trades", group="returns", inputs=["price"], lookback=RSI_LENGTH)
def relative_strength() -> pl.Expr:
    """Relative strength index of 14 trades, Wilder's smoothing over the last 499 price changes.

    Formula: 100·G / (G + L), G = Σ q^i·gain(t−i), L the same of losses, i = 0 … 498, q = 13/14.
    Unit: none, 0 to 100.
    Null: until 500 trades exist, and where no price among them changed.
    Source: Wilder (1978); TA-Lib's RSI(14) of those 500 trades to 1e-13.
    """
    gains, losses = (decayed(name, RSI_LENGTH, 13 / 14) for name in ("gain", "loss"))
    return 100 * quotient(gains, gains + losses)


def macd() -> pl.Expr:
    """Fast less slow exponential mean of the last 372 prices."""
    return behind_price(12, MACD_LENGTH) - behind_price(26, MACD_LENGTH)


@feature("macd_12_26", group="returns", inputs=["price"], lookback=MACD_LENGTH - 1)
def macd_line() -> pl.Expr:
    """Moving average convergence divergence: the exponential mean of span 12 less that of span 26, over 372 trades.

    Formula: ema(12) − ema(26), each Σ q^i·price(t−i) / Σ q^i, i = 0 … 371, q = 1 − 2/(span + 1).
    Unit: quote currency.
    Null: until 372 trades exist.
    Source: Appel (2005); pandas ewm(span, adjust=True) over those 372 trades.
    """
    return pl.col("macd")


def macd_mean() -> pl.Expr:
    """Exponential mean of span 9 over the last 128 values of macd_12_26."""
    decay = 1 - 2 / 10
    return decayed("macd", SIGNAL_LENGTH, decay) * ((1 - decay) / (1 - decay**SIGNAL_LENGTH))


@feature("macd_signal_9", group="returns", inputs=["price"], lookback=MACD_LENGTH + SIGNAL_LENGTH - 2)
def macd_signal() -> pl.Expr:
    """Exponential mean of span 9 over the last 128 values of macd_12_26.

    Formula: Σ q^i·macd_12_26(t−i) / Σ q^i, i = 0 … 127, q = 4/5.
    Unit: quote currency.
    Null: until 499 trades exist.
    Source: Appel (2005); pandas ewm(span=9, adjust=True) over those 128 values.
    """
    return macd_mean()


@feature("macd_histogram", group="returns", inputs=["price"], lookback=MACD_LENGTH + SIGNAL_LENGTH - 2)
def macd_histogram() -> pl.Expr:
    """Distance of macd_12_26 from its signal.

    Formula: macd_12_26 − macd_signal_9.
    Unit: quote currency.
    Null: until 499 trades exist.
    Source: Appel (2005).
    """
    return pl.col("macd") - macd_mean()
