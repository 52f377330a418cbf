"""How much was traded in the last trades, and at what price on average."""

from __future__ import annotations

import polars as pl

from marketflow.features.trades.amounts import quotient, size
from marketflow.features.trades.feature import feature
from marketflow.features.trades.windows import lag, total

WINDOWS = (10, 50, 100)


def _vwap_less_price(window: int) -> pl.Expr:
    return lag("size", "price_units", window) / size(total("size_units", window))


@feature("volume_{w}", group="volume", inputs=["size"], windows=(*WINDOWS, 500), lookback=lambda w: w - 1)
def volume(window: int) -> pl.Expr:
    """Amount traded in the last {w} trades.

    Formula: Σ size over trades t−{w}+1 … t, summed exactly.
    Unit: base currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return size(total("size_units", window))


@feature("volume_ma_{w}", group="volume", inputs=["size"], windows=WINDOWS, lookback=lambda w: w - 1)
def mean_size(window: int) -> pl.Expr:
    """Mean size of the last {w} trades.

    Formula: Σ size / {w} over trades t−{w}+1 … t.
    Unit: base currency.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return size(total("size_units", window)) / window


@feature("volume_ratio_{w}", group="volume", inputs=["size"], windows=(10, 50), lookback=lambda w: w - 1)
def size_against_mean(window: int) -> pl.Expr:
    """Size of the trade against the mean of the last {w}.

    Formula: size / volume_ma_{w}.
    Unit: none.
    Null: until {w} trades exist.
    Source: by definition.
    """
    return quotient(size(pl.col("size_units") * window), size(total("size_units", window)))


@feature("vwap_{w}", group="volume", inputs=["price", "size"], windows=(*WINDOWS, 500), lookback=lambda w: w - 1)
def volume_weighted_price(window: int) -> pl.Expr:
    """Volume-weighted average price of the last {w} trades.

    Formula: Σ price·size / Σ size over trades t−{w}+1 … t.
    Unit: quote currency.
    Null: until {w} trades exist.
    Source: Berkowitz, Logue and Noser (1988).
    """
    return total("notional", window) / size(total("size_units", window))


@feature(
    "price_vs_vwap_{w}", group="volume", inputs=["price", "size"], windows=(50, 100, 500), lookback=lambda w: w - 1
)
def price_against_vwap(window: int) -> pl.Expr:
    """How far the price lies above the volume-weighted average of the last {w} trades.

    Formula: 100·(price / vwap_{w} − 1).
    Unit: percent.
    Null: until {w} trades exist.
    Source: by definition.
    """
    vwap = total("notional", window) / size(total("size_units", window))
    return -100 * _vwap_less_price(window) / vwap
