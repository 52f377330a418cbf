"""The features that other libraries define, against those libraries or, for RSI, against Wilder's own recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.features.trade_checks import computed
from tests.unit.features.trade_tapes import made

LENGTH = 900
ROWS = (499, 500, 501, 640, 777, LENGTH - 1)
MARKETS = ("bitcoin", "penny", "sellers_only", "tenth_place")


def doubles(market: str, column: str) -> pd.Series[float]:
    return pd.Series([float(getattr(trade, column)) for trade in made(market, 11, LENGTH).trades])


def feature(market: str, name: str) -> np.ndarray[Any, Any]:
    return computed(made(market, 11, LENGTH))[name].to_numpy()


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("window", [10, 50, 100, 500])
def test_means_and_sums_equal_pandas_rolling(market: str, window: int) -> None:
    prices, sizes = doubles(market, "price").rolling(window), doubles(market, "size").rolling(window)
    np.testing.assert_allclose(feature(market, f"ma_{window}_trades"), prices.mean(), rtol=1e-12)
    # pandas adds and takes away: what a large size leaves behind stays in its sum
    np.testing.assert_allclose(feature(market, f"volume_{window}"), sizes.sum(), rtol=1e-9)
    if window < 500:
        np.testing.assert_array_max_ulp(feature(market, f"min_{window}_trades"), prices.min().to_numpy(), maxulp=1)
        np.testing.assert_array_max_ulp(feature(market, f"max_{window}_trades"), prices.max().to_numpy(), maxulp=1)


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("window", [10, 50, 100, 500])
def test_the_standard_deviation_equals_pandas_rolling_std(market: str, window: int) -> None:
    """Of the same prices less the first of each window: pandas' own rolling variance loses digits at 60,000 dollars."""
    prices = doubles(market, "price")
    slow = prices.rolling(window).apply(lambda one: pd.Series(one - one[0]).std(), raw=True)
    # prices as doubles are known to 1e-16 of themselves, and so is what is between them
    np.testing.assert_allclose(feature(market, f"volatility_{window}"), slow, rtol=1e-9, atol=4e-16 * prices.max())


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("span", [10, 50, 100])
def test_the_exponential_mean_equals_pandas_ewm_over_500_trades(market: str, span: int) -> None:
    prices, ema = doubles(market, "price"), feature(market, f"ema_{span}_trades")
    assert np.isnan(ema[:499]).all()
    for row in ROWS:
        expected = prices[row - 499 : row + 1].ewm(span=span, adjust=True).mean().iloc[-1]
        assert ema[row] == pytest.approx(expected, rel=1e-12, abs=0), row


def pandas_macd(prices: pd.Series[float], row: int) -> float:
    window = prices[row - 371 : row + 1]
    fast, slow = (window.ewm(span=span, adjust=True).mean().iloc[-1] for span in (12, 26))
    return float(fast - slow)


@pytest.mark.parametrize("market", MARKETS)
def test_macd_its_signal_and_its_histogram_equal_pandas_ewm(market: str) -> None:
    prices = doubles(market, "price")
    line, signal, histogram = (feature(market, f"macd_{name}") for name in ("12_26", "signal_9", "histogram"))
    assert (np.isnan(line).sum(), np.isnan(signal).sum(), np.isnan(histogram).sum()) == (371, 498, 498)
    # pandas subtracts means that are doubles near the price: its own error is some 1e-16 of the price
    near = 1e-14 * prices.max()
    for row in ROWS[::2]:
        values = pd.Series([pandas_macd(prices, i) for i in range(row - 127, row + 1)])
        expected = values.ewm(span=9, adjust=True).mean().iloc[-1]
        assert line[row] == pytest.approx(values.iloc[-1], rel=1e-9, abs=near)
        assert signal[row] == pytest.approx(expected, rel=1e-9, abs=near)
        assert histogram[row] == pytest.approx(values.iloc[-1] - expected, rel=1e-9, abs=near)


def wilder_rsi(prices: Sequence[float], length: int = 14) -> float:
    """Wilder's recipe, which is TA-Lib's: the mean of the first 14 gains and losses, then (13·mean + newest) / 14."""
    changes = np.diff(np.array(prices))
    gains, losses = np.maximum(changes, 0), np.maximum(-changes, 0)
    gain, loss = float(gains[:length].mean()), float(losses[:length].mean())
    for newest_gain, newest_loss in zip(gains[length:], losses[length:], strict=True):
        gain = ((length - 1) * gain + newest_gain) / length
        loss = ((length - 1) * loss + newest_loss) / length
    return 100 * gain / (gain + loss)


@pytest.mark.parametrize("market", MARKETS)
def test_rsi_equals_wilders_recipe_with_its_seed(market: str) -> None:
    """In plain Python: TA-Lib is not among what the tests may import. The catalogue promises 1e-13 of TA-Lib's value.

    The prices are differences from the first in whole ticks, so that the recipe's own rounding does not count.
    """
    trades = made(market, 11, LENGTH).trades
    tick = min(trade.price.as_tuple().exponent for trade in trades)
    ticks = [float((trade.price - trades[0].price).scaleb(-int(tick))) for trade in trades]
    rsi = feature(market, "rsi_14_trades")
    assert np.isnan(rsi[:499]).all()
    for row in ROWS:
        assert rsi[row] == pytest.approx(wilder_rsi(ticks[row - 499 : row + 1]), rel=1e-13, abs=1e-13), row
