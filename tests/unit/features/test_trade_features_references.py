"""The features that other libraries define, against those libraries: pandas and TA-Lib."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib

from tests.unit.features.trade_checks import computed
from tests.unit.features.trade_tapes import made

LENGTH = 900
ROWS = (499, 500, 501, 640, 777, LENGTH - 1)
MARKETS = ("bitcoin", "penny", "sellers_only", "tenth_place")


def doubles(market: str, column: str) -> pd.Series[float]:
    return pd.Series([float(getattr(trade, column)) for trade in made(market, 11, LENGTH).trades])


@cache
def features(market: str) -> pl.DataFrame:
    return computed(made(market, 11, LENGTH))


def feature(market: str, name: str) -> np.ndarray[Any, Any]:
    return features(market)[name].to_numpy()


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


def ticks(market: str) -> np.ndarray[Any, Any]:
    """Prices as whole ticks from the first: their sums and squares are exact, so a recipe's rounding does not count."""
    trades = made(market, 11, LENGTH).trades
    return np.array([float((trade.price - trades[0].price).scaleb(-exponent(market))) for trade in trades])


def exponent(market: str) -> int:
    return min(int(trade.price.as_tuple().exponent) for trade in made(market, 11, LENGTH).trades)


@pytest.mark.parametrize("market", MARKETS)
def test_rsi_equals_wilders_in_ta_lib_over_500_trades(market: str) -> None:
    """TA-Lib begins with the mean of the first 14 gains, the feature with none: (13/14)^485 = 2e-16 of it is left."""
    prices, rsi = ticks(market), feature(market, "rsi_14_trades")
    assert np.isnan(rsi[:499]).all()
    for row in ROWS:
        expected = talib.RSI(prices[row - 499 : row + 1], 14)[-1]
        assert rsi[row] == pytest.approx(expected, rel=1e-13, abs=1e-13), row


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("window", [10, 50, 100, 500])
def test_means_equal_ta_libs_sma(market: str, window: int) -> None:
    # a running sum: what 900 additions of a price round away stays in it
    expected = talib.SMA(doubles(market, "price").to_numpy(), window)
    np.testing.assert_allclose(feature(market, f"ma_{window}_trades"), expected, rtol=1e-12)


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("window", [10, 50, 100, 500])
def test_the_standard_deviation_is_ta_libs_of_a_population_scaled_to_a_sample(market: str, window: int) -> None:
    """TA-Lib divides by w, the feature by w − 1; it squares prices, so it is given ticks from each window's first."""
    prices, tick = ticks(market), 10.0 ** exponent(market)
    deviation = feature(market, f"volatility_{window}")
    for row in ROWS:
        own = prices[row - window + 1 : row + 1]
        expected = talib.STDDEV(own - own[0], window)[-1] * math.sqrt(window / (window - 1)) * tick
        assert deviation[row] == pytest.approx(expected, rel=1e-9, abs=1e-9 * tick), row


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("span", [10, 50, 100])
def test_the_exponential_mean_differs_from_ta_libs_by_its_seed_alone(market: str, span: int) -> None:
    """TA-Lib's begins with the plain mean of the first `span` of the 500 prices, which keeps the weight q^(500 − span).

    The feature gives that weight to the same prices, the newer of them more, and divides by what all weights add up to:
    both are means of the same 500 prices, so they differ by no more than that share of the prices' width. That is
    nothing at span 10 (1e-43), 2e-8 at 50 and 4e-4 at 100.
    """
    prices, ema = doubles(market, "price").to_numpy(), feature(market, f"ema_{span}_trades")
    for row in ROWS:
        own = prices[row - 499 : row + 1]
        seed = (1 - 2 / (span + 1)) ** (500 - span)
        near = seed * (own.max() - own.min()) + 1e-13 * own.max()
        assert ema[row] == pytest.approx(talib.EMA(own, span)[-1], rel=0, abs=near), row


@pytest.mark.parametrize("market", MARKETS)
def test_macd_its_signal_and_its_histogram_equal_ta_libs_over_500_trades(market: str) -> None:
    """TA-Lib's seeds leave (25/27)^346 = 3e-12 of the prices' width in the line, 0.8^119 of that in the signal."""
    prices = doubles(market, "price").to_numpy()
    told = [feature(market, f"macd_{name}") for name in ("12_26", "signal_9", "histogram")]
    for row in ROWS:
        own = prices[row - 499 : row + 1]
        # its means are doubles near the price, and what lies between them is known to 1e-16 of that
        near = 1e-11 * (own.max() - own.min()) + 1e-14 * own.max()
        for mine, expected in zip(told, talib.MACD(own, 12, 26, 9), strict=True):
            assert mine[row] == pytest.approx(expected[-1], rel=0, abs=near), row
