from __future__ import annotations

import math
import random
import statistics
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.contracts.gold import PRICE_METRICS
from marketflow.errors import KernelError
from marketflow.features import frames
from marketflow.features.prices import LOOKBACK_S, price_metrics

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MEASURES = (
    "change_1min",
    "change_5min",
    "sma_5m",
    "ema_3m",
    "volatility_5m",
    "realized_volatility_5m",
    "observations_5m",
)


def observation(seconds: float | Decimal, price: object, asset: str = "bitcoin", **more: object) -> dict[str, object]:
    at = NOON + timedelta(microseconds=int(Decimal(str(seconds)) * 1_000_000))
    row = {
        "source": "coingecko",
        "asset_id": asset,
        "vs_currency": "usd",
        "last_updated": at,
        "symbol": asset[:3],
        "name": asset.title(),
        "price": Decimal(str(price)),
        "market_cap": Decimal(str(price)) * 1000,
        "market_cap_rank": 1,
        "volume_24h": None,
        "polled_at": at + timedelta(seconds=9),
    }
    return row | more


def frame(rows: list[dict[str, object]]) -> pl.DataFrame:
    types = {"last_updated" if name == "ts" else name: dtype for name, dtype in frames.schema(PRICE_METRICS).items()}
    return pl.DataFrame(rows, schema={name: types[name] for name in observation(0, 1)})


def series(*points: tuple[float, object]) -> pl.DataFrame:
    """One asset's (seconds after noon, price)."""
    return frame([observation(seconds, price) for seconds, price in points])


def last(observations: pl.DataFrame, **options: int) -> dict[str, object]:
    return price_metrics(observations, **options).tail(1).to_dicts()[0]


def slow_measures(rows: list[dict[str, object]], row: dict[str, object], tolerance_s: int = 90) -> dict[str, object]:
    """The definitions, read aloud: every row looked at anew, exact decimals or fsum."""
    own = [r for r in rows if all(r[key] == row[key] for key in ("source", "asset_id", "vs_currency"))]
    own = sorted((r for r in own if r["last_updated"] <= row["last_updated"]), key=lambda r: r["last_updated"])

    def age(other: dict[str, object]) -> timedelta:
        return row["last_updated"] - other["last_updated"]

    def change(seconds: int) -> float | None:
        old = [r for r in own if age(r) >= timedelta(seconds=seconds)]
        if not old or age(old[-1]) > timedelta(seconds=seconds + tolerance_s):
            return None
        with localcontext(prec=60):
            return float(100 * (row["price"] / old[-1]["price"] - 1))

    window = [float(r["price"]) for r in own if age(r) < timedelta(seconds=300)]
    weighted = [
        (2 ** (-age(r).total_seconds() / 61.8), float(r["price"])) for r in own if age(r) < timedelta(seconds=1236)
    ]
    returns = [math.log(b / a) for a, b in pairwise(window)]
    return {
        "change_1min": change(60),
        "change_5min": change(300),
        "sma_5m": math.fsum(window) / len(window),
        "ema_3m": math.fsum(w * p for w, p in weighted) / math.fsum(w for w, _ in weighted),
        "volatility_5m": statistics.stdev(window) if len(window) > 1 else None,
        "realized_volatility_5m": math.sqrt(math.fsum(r * r for r in returns)) if len(window) > 1 else None,
        "observations_5m": len(window),
    }


# steps that fall on the edges of the windows, a microsecond beside them, and ordinary ones
STEPS_US = st.one_of(
    st.sampled_from([1, 30, 60, 150, 300, 390, 1236]).map(lambda s: s * 1_000_000),
    st.sampled_from([59_999_999, 60_000_001, 299_999_999, 300_000_001]),
    st.integers(1, 120_000_000),
)


@st.composite
def several_series(draw: st.DrawFn) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for key in draw(st.sets(st.sampled_from(["bitcoin", "ethereum", "tether"]), min_size=1)):
        base = draw(st.decimals("0.00001", "90000", places=8))
        at = 0
        for step in draw(st.lists(STEPS_US, min_size=1, max_size=25)):
            at += step
            price = (base * draw(st.decimals("0.8", "1.25", places=6))).quantize(Decimal("1e-14"))
            rows.append(observation(Decimal(at) / 1_000_000, price, key))
    return draw(st.permutations(rows))


@given(several_series(), st.sampled_from([0, 30, 90, 936]))
@settings(max_examples=150, deadline=None)
def test_every_measure_equals_its_definition_computed_row_by_row(rows: list[dict[str, object]], tolerance: int) -> None:
    result = price_metrics(frame(rows), tolerance_s=tolerance)
    assert result.height == len(rows)
    by_key = {(r["asset_id"], r["last_updated"]): r for r in rows}
    for got in result.to_dicts():
        expected = slow_measures(rows, by_key[got["asset_id"], got["ts"]], tolerance)
        for name in MEASURES:
            absolute = 1e-11 if name.startswith("change") else 1e-13 * float(got["price"])
            if name == "realized_volatility_5m":
                absolute = 1e-13
            assert (got[name] is None) == (expected[name] is None), name
            if expected[name] is not None:
                assert math.isclose(got[name], expected[name], rel_tol=1e-11, abs_tol=absolute), name


@given(several_series(), st.integers(0, 2000), st.randoms(use_true_random=False))
@settings(max_examples=80, deadline=None)
def test_a_batch_split_anywhere_and_shuffled_equals_the_whole_to_the_last_bit(
    rows: list[dict[str, object]], split_s: int, shuffle: random.Random
) -> None:
    split = NOON + timedelta(seconds=split_s)
    whole = price_metrics(frame(rows))
    first = [r for r in rows if r["last_updated"] < split]  # the future is cut off
    second = [r for r in rows if r["last_updated"] > split - timedelta(seconds=LOOKBACK_S)]  # so is the distant past
    shuffle.shuffle(first)
    shuffle.shuffle(second)
    parts = pl.concat([price_metrics(frame(first)), price_metrics(frame(second)).filter(pl.col("ts") >= split)])
    assert parts.sort("asset_id", "ts").equals(whole.sort("asset_id", "ts"))


def long_irregular_series(count: int = 1500) -> pl.DataFrame:
    source = random.Random(7)
    rows, at, price = [], 0.0, 60_000.0
    for _ in range(count):
        at += source.choice([5, 20, 30, 31.5, 45, 200]) * source.uniform(0.5, 1.5)
        price *= math.exp(source.gauss(0, 2e-4))
        rows.append(observation(round(at, 6), round(price, 8)))
    return frame(rows)


@pytest.mark.parametrize("row", [0, 1, 137, 500, 1499])
def test_the_last_row_of_a_long_series_needs_no_more_than_its_lookback(row: int) -> None:
    observations = long_irregular_series()
    at = observations.item(row, "last_updated")
    near = observations.filter(
        pl.col("last_updated").is_between(at - timedelta(seconds=LOOKBACK_S), at, closed="right")
    )
    assert last(near) == price_metrics(observations).row(row, named=True)


def test_the_ema_equals_pandas_ewm_by_half_life_within_the_cut_tail() -> None:
    observations = long_irregular_series()
    prices = pd.Series(observations["price"].cast(pl.Float64).to_list())
    times = pd.DatetimeIndex(observations["last_updated"].to_list())
    expected = prices.ewm(halflife=pd.Timedelta(seconds=61.8), times=times).mean()
    got = price_metrics(observations)["ema_3m"]
    # what pandas keeps and we cut weighs below 2^-20 of the newest and its prices differ by a few percent at most
    assert max(abs(a / b - 1) for a, b in zip(got, expected, strict=True)) < 1e-7


def test_at_a_regular_30_second_step_the_ema_is_the_classical_one_of_span_6() -> None:
    source = random.Random(3)
    points = [(30 * step, round(60_000 * math.exp(source.gauss(0, 0.01)), 6)) for step in range(400)]
    expected = pd.Series([price for _, price in points]).ewm(span=6, adjust=True).mean()
    got = price_metrics(series(*points))["ema_3m"]
    assert max(abs(a / b - 1) for a, b in zip(got, expected, strict=True)) < 2e-6


def test_an_observation_exactly_60_seconds_old_is_the_reference_of_the_one_minute_change() -> None:
    assert last(series((0, 100), (60, 101)))["change_1min"] == pytest.approx(1.0)


def test_an_observation_a_microsecond_younger_than_60_seconds_is_not() -> None:
    assert last(series((0.000001, 100), (60, 101)))["change_1min"] is None


def test_of_two_old_observations_the_latest_is_the_reference() -> None:
    assert last(series((-20, 50), (-1, 100), (60, 102)))["change_1min"] == pytest.approx(2.0)


def test_a_reference_exactly_at_the_tolerance_counts_and_a_microsecond_older_does_not() -> None:
    assert last(series((-90, 100), (60, 101)))["change_1min"] == pytest.approx(1.0)
    assert last(series((-90.000001, 100), (60, 101)))["change_1min"] is None
    assert last(series((0, 100), (390, 99)))["change_5min"] == pytest.approx(-1.0)
    assert last(series((-0.000001, 100), (390, 99)))["change_5min"] is None


def test_the_tolerance_is_the_callers() -> None:
    assert last(series((0, 100), (61, 101)), tolerance_s=0)["change_1min"] is None
    assert last(series((0, 100), (60, 101)), tolerance_s=0)["change_1min"] == pytest.approx(1.0)


def test_the_five_minute_window_excludes_the_observation_exactly_300_seconds_old() -> None:
    got = last(series((0, 1000), (0.000001, 100), (300, 200)))
    assert (got["observations_5m"], got["sma_5m"]) == (2, 150.0)


def test_the_ema_excludes_the_observation_exactly_at_its_lookback() -> None:
    assert last(series((0, 1e9), (1236, 100)))["ema_3m"] == 100.0
    assert last(series((0.000001, 1e9), (1236, 100)))["ema_3m"] > 100.0


def test_a_first_observation_has_a_mean_and_no_change_or_volatility() -> None:
    got = last(series((0, "60000.12")))
    assert [got[name] for name in MEASURES] == [None, None, 60000.12, 60000.12, None, None, 1]


def test_a_constant_price_has_volatility_zero_and_is_its_own_mean_to_the_last_bit() -> None:
    got = last(series(*((30 * step, "0.1") for step in range(60))))
    assert [got[name] for name in MEASURES] == [0.0, 0.0, 0.1, 0.1, 0.0, 0.0, 10]


def test_realized_volatility_takes_no_return_that_begins_outside_the_window() -> None:
    got = last(series((0, 1), (10, 100), (300, 200)))
    assert got["realized_volatility_5m"] == pytest.approx(math.log(2), rel=1e-14)


def test_two_assets_two_currencies_and_two_sources_never_mix() -> None:
    alone = observation(60, 100)
    crowd = [alone, observation(0, 1, "ethereum"), observation(0, 2, vs_currency="eur"), observation(0, 3, source="x")]
    got = price_metrics(frame(crowd)).filter(pl.col("price") == 100)
    assert got.row(0, named=True) == last(frame([alone]))


def test_the_output_has_the_contracts_columns_and_types_and_carries_money_untouched() -> None:
    exact = Decimal("12345678901234567890.123456789012345678")
    got = price_metrics(frame([observation(0, exact, volume_24h=exact, market_cap=None, market_cap_rank=None)]))
    assert got.schema == frames.schema(PRICE_METRICS)
    assert got.select("price", "volume_24h", "market_cap", "market_cap_rank").row(0) == (exact, exact, None, None)


def test_no_observations_give_no_rows_of_the_contracts_types() -> None:
    assert price_metrics(frame([])).equals(frames.empty(PRICE_METRICS))


def test_a_key_that_occurs_twice_is_refused_by_name() -> None:
    with pytest.raises(KernelError, match=r"coingecko / bitcoin / usd / 2026-03-01 12:00:01\+00:00 occurs twice"):
        price_metrics(series((1, 100), (1, 101), (2, 102)))


@pytest.mark.parametrize("price", [0, -1])
def test_a_price_that_is_not_above_zero_is_refused(price: int) -> None:
    with pytest.raises(KernelError, match="not above zero"):
        price_metrics(series((1, 100), (2, price)))


@pytest.mark.parametrize("tolerance", [-1, 937])
def test_a_tolerance_beyond_the_declared_lookback_is_refused(tolerance: int) -> None:
    with pytest.raises(KernelError, match="tolerance_s"):
        price_metrics(series((1, 100)), tolerance_s=tolerance)
