"""Digits: dollars next to hundred-millionths, tapes of millions, and roundings that happen once."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import polars as pl
import pytest

from marketflow.features.trades.catalogue import CATALOGUE
from marketflow.features.trades.feature import Feature
from marketflow.features.trades.kernel import trade_features
from marketflow.verify.features_oracle import Oracle
from marketflow.verify.features_tape import Trade
from tests.unit.features.trade_checks import ALL, computed, is_exact, unlike, wrong_against_oracle
from tests.unit.features.trade_tapes import MONEY, PRODUCT, START_US, TIME, VENUE, Tape, made

TICK = Decimal("0.01")


def of(prices: Sequence[Decimal], sizes: Sequence[Decimal] = (), *, sides: str = "bs") -> Tape:
    """Trades at these prices, a tenth of a second apart; sizes and sides repeat."""
    sizes = sizes or (Decimal("0.25"), Decimal("0.5"), Decimal("0.01"))
    side = {"b": "buy", "s": "sell"}
    return Tape(
        tuple(
            Trade(i + 1, price, sizes[i % len(sizes)], side[sides[i % len(sides)]], START_US + 100_000 * i)
            for i, price in enumerate(prices)
        )
    )


def walk(first: str, tick: str, steps: int, seed: int = 1) -> list[Decimal]:
    source, price, prices = random.Random(seed), Decimal(first), []
    for _ in range(steps):
        price += source.choice((-1, 0, 1)) * Decimal(tick)
        prices.append(price)
    return prices


def features(*prefixes: str) -> list[Feature]:
    return [one for one in ALL if one.name.startswith(prefixes)]


def test_one_cent_moves_of_sixty_thousand_dollars_are_told_to_a_trillionth() -> None:
    """One trade in 500 moved by a cent: variance, z-score and slope live in the last digits of the price."""
    prices = [Decimal(60_000)] * 300 + [Decimal(60_000) + TICK] + [Decimal(60_000)] * 300
    assert wrong_against_oracle(of(prices), range(300, 601, 20), relative=1e-12) == []
    assert wrong_against_oracle(of(walk("60000", "0.01", 620)), range(500, 620, 20), relative=1e-12) == []


def test_a_price_that_halves_and_then_moves_by_cents_has_the_variance_of_the_cents() -> None:
    """What a running sum keeps from the jump would be larger than what is asked."""
    prices = [*walk("60000", "0.01", 300), *walk("30000", "0.01", 600)]
    assert wrong_against_oracle(of(prices), range(410, 900, 35), relative=1e-11) == []


def test_a_hundred_millionth_next_to_a_million_is_not_lost() -> None:
    million, least = Decimal(1_000_000), Decimal("0.00000001")
    tape = of(walk("60000", "0.01", 620), [million, least, million - least, least, least], sides="bbssb")
    assert wrong_against_oracle(tape, range(500, 620, 10), relative=1e-12) == []
    only_least_after = of(walk("60000", "0.01", 700), [million] * 150 + [least] * 550)
    assert wrong_against_oracle(only_least_after, range(640, 700, 10), relative=1e-12) == []


def test_the_smallest_and_the_largest_amounts_that_are_allowed_are_told_to_a_billionth() -> None:
    least, most = Decimal("1e-18"), Decimal("1e17")
    tape = of([Decimal(1), 1 + least, Decimal(2)] * 210, [most, least, Decimal(1)])
    names = ("ma_", "min_", "max_", "price_", "return_", "volume_", "vwap_", "buy_", "sell_", "signed_", "order_")
    assert wrong_against_oracle(tape, range(500, 630, 13), features(*names)) == []


def test_prices_of_eighteen_places_keep_their_variance_after_a_jump() -> None:
    """Steps of 10^-15 after the price rose by a tenth: more steps of 10^-18 than a double counts one by one."""
    prices = [Decimal("1.500000000000000001"), *walk("1.65", "0.000000000000001", 620)]
    names = ("volatility_", "zscore_", "vwap_", "price_vs_vwap_", "ema_", "macd_", "rsi_")
    assert wrong_against_oracle(of(prices), range(501, 621, 12), features(*names)) == []


# two of the second row's sizes are the same number as doubles
@pytest.mark.parametrize("size", ["1000", "100000000"])
def test_the_slope_on_sizes_that_differ_in_their_last_places_alone(size: str) -> None:
    """Buyers alone, all of nearly the same size: the sizes' variance lives in the last digits of the size."""
    sizes = [Decimal(size) + Decimal(i).scaleb(-8) for i in (1, 7, 2, 9, 4)]
    tape = of(walk("60000", "0.01", 620), sizes, sides="b")
    assert wrong_against_oracle(tape, [500, 560, 619], features("kyle")) == []


@pytest.mark.parametrize("fall", ["0.5", "0.0001", "0.000000001", "0.0000000001"])
def test_a_return_is_right_however_deep_the_fall(fall: str) -> None:
    """ln(1 + change / price) cancels where the change is nearly the whole price."""
    prices = [Decimal(50), Decimal(90)] * 255 + [Decimal(90) * Decimal(fall)] * 2
    names = ("log_return_1", "realized_volatility_", "amihud_", "return_")
    assert wrong_against_oracle(of(prices), [510, 511], features(*names)) == []


@pytest.mark.parametrize("rise", ["1000", "1000000000"])
def test_means_are_right_however_high_the_last_trade_jumped(rise: str) -> None:
    """A mean told as its distance from the price cancels where the price is far above it, as after a slip of a hand."""
    prices = [*walk("1", "0.0001", 600), Decimal(rise)]
    tape = of(prices, [*[Decimal(1_000_000)] * 600, Decimal("0.00000001")])
    assert wrong_against_oracle(tape, [600], features("ma_", "vwap_", "ema_", "price_vs_", "zscore_")) == []


@pytest.mark.parametrize("market", ["bitcoin", "penny", "tenth_place", "extreme_sizes"])
def test_extremes_are_the_double_of_the_price_itself(market: str) -> None:
    """A reader who compares min_10_trades with the price of silver, as a double, finds it there."""
    tape = made(market, 21, 300)
    got, rows = computed(tape, features("min_", "max_", "best_", "future_price")), range(100, 300)
    oracle = Oracle(tape.trades, tape.quotes)
    names = [name for name in got.columns if name in CATALOGUE]
    wrong = {name: [row for row in rows if got[name][row] != oracle.value(name, row)] for name in names}
    assert {name: len(found) for name, found in wrong.items() if found} == {}


@pytest.mark.parametrize(("market", "units_off"), [("bitcoin", 0), ("penny", 0), ("extreme_sizes", 1)])
def test_sums_of_sizes_are_rounded_once(market: str, units_off: int) -> None:
    """'Summed exactly' and made a double at the end: the double nearest to the sum.

    A sum of more than 2^53 hundred-millionths may be one unit in the last place off.
    """
    tape = made(market, 21, 600)
    sums = [one for one in ALL if is_exact(one) and "volume" in one.name]
    assert len(sums) == 11
    got, oracle = computed(tape, sums), Oracle(tape.trades, tape.quotes)

    def is_off(name: str, row: int) -> bool:
        value, expected = got[name][row], oracle.value(name, row)
        return abs(value - expected) > units_off * math.ulp(expected)

    wrong = {one.name: sum(is_off(one.name, row) for row in range(500, 600)) for one in sums}
    assert {name: count for name, count in wrong.items() if count} == {}


def million_trades(length: int) -> pl.DataFrame:
    """A long tape from arrays: cents around 60,000 dollars, sizes from 10^-8 to 10^6."""
    source = np.random.default_rng(8)
    cents = 6_000_000 + np.cumsum(source.integers(-2, 3, length))
    sizes = np.maximum(10 ** source.uniform(0, 14, length), 1).astype(np.int64)
    whole = pl.DataFrame(
        {
            "cents": np.maximum(cents, 1),
            "size": sizes,
            "buy": source.random(length) < 0.5,
            "at": source.integers(0, 9**6, length),
        }
    )
    return whole.select(
        pl.lit(VENUE).alias("venue"),
        pl.lit(PRODUCT).alias("product_id"),
        pl.int_range(1, pl.len() + 1).alias("trade_id"),
        (pl.col("cents").cast(MONEY) / 100).cast(MONEY).alias("price"),
        (pl.col("size").cast(MONEY) / 100_000_000).cast(MONEY).alias("size"),
        pl.when("buy").then(pl.lit("buy")).otherwise(pl.lit("sell")).alias("taker_side"),
        (START_US + pl.col("at").cum_sum()).cast(TIME).alias("event_ts"),
        pl.lit(None, dtype=pl.Int64).alias("sequence"),
    )


# one of each way of summing, over the longest windows: two million rows of every feature would not fit the minute
LONG = [
    CATALOGUE[name]
    for name in (
        *(
            "ma_500_trades",
            "volatility_500",
            "zscore_500",
            "min_100_trades",
            "ema_100_trades",
            "vwap_500",
            "volume_500",
        ),
        *("signed_volume_100", "kyle_lambda_500", "amihud_500", "realized_volatility_500", "rsi_14_trades"),
        *("macd_signal_9", "gaps_in_window_500", "aggressor_run_length", "trades_per_second_500"),
    )
]


def test_the_last_windows_of_two_million_trades_are_those_of_the_last_600_trades() -> None:
    trades = million_trades(2_000_000)
    started = time.process_time()
    whole = trade_features(trades, features=LONG).tail(100)
    spent = time.process_time() - started
    fresh = trade_features(trades.tail(600), features=LONG).tail(100)
    assert unlike(whole, fresh, LONG) == []
    every = trade_features(trades.tail(601)).tail(100)
    assert unlike(every, fresh, LONG) == []
    assert spent < 20, "processor seconds, of all threads"


def test_every_feature_in_the_middle_of_a_hundred_thousand_trades_is_that_of_its_neighbourhood() -> None:
    trades = million_trades(100_000)
    whole = trade_features(trades).slice(70_000, 100)
    near = trade_features(trades.slice(69_500, 650)).slice(500, 100)
    assert unlike(whole, near, ALL) == []


def test_the_long_tape_is_what_it_says() -> None:
    trades = million_trades(10_000)
    sizes = [Fraction(size) for size in trades["size"].to_list()]
    assert min(sizes) < Fraction(1, 10**6)
    assert max(sizes) > 5 * 10**5
    assert trades["price"].to_list()[0].quantize(TICK) == trades["price"].to_list()[0]


@pytest.mark.parametrize("price", ["60000.01", "0.00001234", "0.000000000000000007", "99999999.123456789012345678"])
def test_equal_prices_of_any_digits_have_no_variance_at_all(price: str) -> None:
    last = computed(of([Decimal(price)] * 520)).row(-1, named=True)
    zeros = (
        "volatility_500",
        "price_range_100",
        "price_change_100",
        "macd_12_26",
        "macd_signal_9",
        "price_vs_vwap_500",
    )
    assert [last[name] for name in zeros] == [0.0] * len(zeros)
    assert last["zscore_500"] is last["price_position_500"] is last["rsi_14_trades"] is None
    means = [last[name] for name in ("ma_500_trades", "vwap_500", "ema_10_trades")]
    assert means == pytest.approx([float(price)] * 3, rel=4e-16, abs=0)
    # a jump before the window leaves nothing behind
    jumped = computed(of([Decimal(price) * 2, *[Decimal(price)] * 520])).row(-1, named=True)
    assert (jumped["volatility_500"], jumped["zscore_500"]) == (0.0, None)


def test_no_feature_is_infinite_or_not_a_number() -> None:
    tapes = [
        made(market, 22, 620) for market in ("bitcoin", "penny", "extreme_sizes", "flat", "late_and_crossed_quotes")
    ]
    deep = of([Decimal(10**10), Decimal("0.00000001")] * 260)
    zero_quotes = replace(
        tapes[0], quotes=tuple(replace(one, best_bid=Decimal(0), best_ask=Decimal(0)) for one in tapes[0].quotes)
    )
    doubles = [one.name for one in ALL if one.type.value == "double"]
    for tape in (*tapes, deep, zero_quotes):
        frame = computed(tape)
        assert [name for name in doubles if not frame[name].drop_nulls().is_finite().all()] == []
