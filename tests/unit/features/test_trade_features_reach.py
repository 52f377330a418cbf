"""How far a trade feature reads: never forward, back as far as it says, and the same from any piece of the tape."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.features.trades.catalogue import CATALOGUE, TARGETS
from marketflow.features.trades.feature import Feature
from marketflow.features.trades.kernel import trade_features
from tests.unit.features.trade_checks import (
    ALL,
    changed_by_cutting_the_future,
    changed_by_cutting_the_past,
    computed,
    is_exact,
    the_same_with_less_lookback,
    unlike_in_chunks,
    wrong_against_oracle,
)
from tests.unit.features.trade_tapes import Tape, Trade, made, quote_frame, short_tapes, tapes, trade_frame


@given(tapes(3), st.data())
@settings(max_examples=40, deadline=None)
def test_truncating_the_future_changes_no_bit_of_any_feature(tape: Tape, data: st.DataObject) -> None:
    cut = data.draw(st.integers(2, len(tape.trades) - 1), label="cut")
    assert changed_by_cutting_the_future(tape, cut) == []


@given(short_tapes().filter(lambda tape: len(tape.trades) > 2), st.data())
@settings(max_examples=40, deadline=None)
def test_truncating_the_future_of_a_short_tape_changes_no_bit_of_any_feature(tape: Tape, data: st.DataObject) -> None:
    cut = data.draw(st.integers(2, len(tape.trades) - 1), label="cut")
    assert changed_by_cutting_the_future(tape, cut) == []


@pytest.mark.parametrize("market", ["bitcoin", "flat", "penny", "tenth_place"])
def test_truncating_the_future_to_one_trade_changes_no_bit_of_any_feature(market: str) -> None:
    """The shortest tape, on its own: an engine may treat a column of one row as a number."""
    changed = {seed: changed_by_cutting_the_future(made(market, seed, 40), 1) for seed in range(20)}
    assert {seed: names for seed, names in changed.items() if names} == {}


def test_a_first_seller_later_changes_no_bit_of_any_feature_of_the_buyers_before() -> None:
    tape = made("long_runs", 8, 620)
    sides = {trade.taker_side for trade in tape.trades[:226]}, {trade.taker_side for trade in tape.trades}
    assert sides == ({"buy"}, {"buy", "sell"})
    assert changed_by_cutting_the_future(tape, 226) == []


def _then(first: Tape, prices: tuple[str, ...], sizes: tuple[str, ...]) -> Tape:
    """The tape, and 60 trades after it at these prices and sizes."""
    last = first.trades[-1]
    more = [
        Trade(
            last.trade_id + i,
            Decimal(prices[i % len(prices)]),
            Decimal(sizes[i % len(sizes)]),
            "buy",
            last.event_us + i,
        )
        for i in range(1, 61)
    ]
    return Tape((*first.trades, *more), first.quotes)


# What comes later may be finer or larger than all before it: a change of tick size, a trade of another magnitude.
FINER_LATER = {
    "prices of ten places": (("60000.0123456789", "60000.01"), ("0.25",)),
    "prices of eight places": (("60000.01234567", "60000.01"), ("0.25",)),
    "sizes of ten places": (("60000.01",), ("0.0123456789",)),
    "sizes beyond 64 bits": (("60000.01",), ("5000000000",)),
}


@pytest.mark.parametrize("later", FINER_LATER)
def test_finer_or_larger_amounts_later_change_no_bit_of_any_feature(later: str) -> None:
    tape = _then(made("bitcoin", 12, 600), *FINER_LATER[later])
    assert changed_by_cutting_the_future(tape, 600) == []


@pytest.mark.parametrize("later", FINER_LATER)
def test_finer_or_larger_amounts_elsewhere_change_no_exact_feature_of_a_piece(later: str) -> None:
    assert unlike_in_chunks(_then(made("bitcoin", 12, 600), *FINER_LATER[later]), [100, 540]) == []


def test_truncating_the_future_changes_targets_and_is_final_of_the_last_fifty_rows_alone() -> None:
    tape = made("bitcoin", 3, 300)
    whole, early = computed(tape).head(200), computed(Tape(tape.trades[:200], tape.quotes))
    for target in TARGETS:
        settled = 200 - target.horizon
        assert whole[target.name].head(settled).equals(early[target.name].head(settled))
        assert early[target.name].tail(target.horizon).null_count() == target.horizon
    assert early["is_final"].to_list() == [True] * 150 + [False] * 50


@given(tapes(501), st.data())
@settings(max_examples=20, deadline=None)
def test_as_many_trades_before_as_a_feature_declares_are_enough(tape: Tape, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(tape.trades) - 1), label="row")
    assert changed_by_cutting_the_past(tape, row) == []


@pytest.mark.parametrize("market", ["bitcoin", "buyers_only", "tenth_place"])
def test_no_feature_declares_more_lookback_than_it_needs(market: str) -> None:
    """With one trade fewer it is null or another value; a run of takers is only cut short where it is that long."""
    features = [one for one in ALL if one.name != "aggressor_run_length" or market == "buyers_only"]
    assert the_same_with_less_lookback(made(market, 4, 700), 600, features) == []


@given(tapes(1), st.data())
@settings(max_examples=20, deadline=None)
def test_pieces_with_500_trades_before_and_50_after_equal_the_whole(tape: Tape, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(tape.trades)), max_size=4), label="cuts")
    assert unlike_in_chunks(tape, cuts) == []


def test_pieces_of_a_long_tape_equal_the_whole() -> None:
    """1,500 trades, so that pieces begin beyond the first 500 and drop some of the past."""
    for market in ("bitcoin", "tenth_place", "extreme_sizes", "times_run_backwards"):
        assert unlike_in_chunks(made(market, 5, 1500), [600, 777, 1100, 1490]) == [], market


@given(tapes(1, 600), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_of_trades_and_quotes_does_not_matter(tape: Tape, source: Random) -> None:
    trades, quotes = list(tape.trades), list(tape.quotes)
    source.shuffle(trades)
    source.shuffle(quotes)
    shuffled = trade_features(trade_frame(trades), quote_frame(quotes))
    assert shuffled.equals(computed(tape))
    assert shuffled["trade_id"].is_sorted()


def test_a_feature_asked_for_alone_has_the_bits_it_has_among_all() -> None:
    tape = made("bitcoin", 6, 620)
    whole = computed(tape)
    for feature in ALL:
        assert computed(tape, [feature])[feature.name].equals(whole[feature.name]), feature.name


# Features with a fault that a slip of the hand would plant, and the check that must name them. Each keeps its name and
# what it declares.
def _faulty(name: str, expression: pl.Expr) -> Feature:
    return replace(CATALOGUE[name], expression=expression)


def _of(name: str) -> pl.Expr:
    return CATALOGUE[name].expression


READS_FORWARD = {
    "the next trade's price": _faulty("price_change_1", pl.col("price").shift(-1) - pl.col("price")),
    "a window around the trade": _faulty("ma_10_trades", pl.col("price").rolling_mean(10).shift(-5)),
    "the tape's mean": _faulty("zscore_50", (pl.col("price") - pl.col("price").mean()) / pl.col("price").std()),
    "the tape's largest size": _faulty("volume_ratio_10", pl.col("size") / pl.col("size").max()),
    "a gap filled from later": _faulty("best_bid", pl.col("bid_units").fill_null(strategy="backward").cast(pl.Float64)),
    "a target as a feature": _faulty("price_change_10", CATALOGUE["future_price_10"].expression),
}
READS_TOO_FAR_BACK = {
    "a window one too long": _faulty("volume_50", pl.col("total(size_units) over 51")),
    "a lag one too long": _faulty("price_change_10", pl.col("price") - pl.col("price").shift(11)),
    "the highest since the tape began": _faulty("max_10_trades", pl.col("price").cum_max()),
    "a mean that never forgets": _faulty("ema_100_trades", pl.col("price").ewm_mean(span=100, adjust=False)),
    "a run of any length": _faulty("gaps_in_window_500", pl.col("gap").cum_sum()),
}
DECLARES_TOO_MUCH = {
    "a lookback of 500 for ten trades": replace(CATALOGUE["ma_10_trades"], lookback=500),
    "one trade too many": replace(CATALOGUE["price_change_10"], lookback=11),
}


def _since_the_tape_began(column: pl.Expr) -> pl.Expr:
    """A sum over 50 trades the way that drifts."""
    return column.cum_sum() - column.cum_sum().shift(50, fill_value=0)


_SUM, _SQUARES = _since_the_tape_began(pl.col("price")), _since_the_tape_began(pl.col("price").pow(2))
_BID, _MA = CATALOGUE["best_bid"], CATALOGUE["ma_10_trades"]
DRIFTS = {
    "squares since the tape began": _faulty("volatility_50", ((_SQUARES - _SUM.pow(2) / 50) / 49).sqrt()),
    "a volume in doubles since the tape began": _faulty("volume_50", _since_the_tape_began(pl.col("size"))),
}
WRONG = {
    "a standard deviation of the population": _faulty("volatility_10", _of("volatility_10") * (9 / 10) ** 0.5),
    "zero where nothing is known yet": _faulty("ma_10_trades", _of("ma_10_trades").fill_null(0.0)),
    "the maker's side": _faulty("is_buy", ~_of("is_buy")),
    "the last trade less": _faulty("volume_10", _of("volume_10") - pl.col("size")),
    "zero for a price that stood still": _faulty("target_direction_10", _of("target_direction_10").fill_null(0)),
    "a cent in sixty thousand dollars": _faulty("vwap_500", _of("vwap_500") * (1 + 2e-9)),
}


@pytest.mark.parametrize("fault", READS_FORWARD)
def test_a_planted_look_into_the_future_is_found(fault: str) -> None:
    feature = READS_FORWARD[fault]
    tape = made("rare_quotes", 7, 620)
    assert any(changed_by_cutting_the_future(tape, cut, [feature]) == [feature.name] for cut in (60, 200, 590))


@pytest.mark.parametrize("fault", READS_TOO_FAR_BACK)
def test_a_planted_look_beyond_the_lookback_is_found(fault: str) -> None:
    feature = READS_TOO_FAR_BACK[fault]
    tape = made("full_of_holes", 7, 700)
    assert any(changed_by_cutting_the_past(tape, row, [feature]) == [feature.name] for row in range(600, 620))


@pytest.mark.parametrize("fault", DECLARES_TOO_MUCH)
def test_a_lookback_larger_than_needed_is_found(fault: str) -> None:
    feature = DECLARES_TOO_MUCH[fault]
    assert the_same_with_less_lookback(made("bitcoin", 7, 700), 600, [feature]) == [feature.name]


@pytest.mark.parametrize("fault", DRIFTS)
def test_a_planted_sum_that_depends_on_where_its_piece_began_is_found(fault: str) -> None:
    feature = DRIFTS[fault]
    assert unlike_in_chunks(made("bitcoin", 7, 1300), [600, 1000], [feature]) == [feature.name]


@pytest.mark.parametrize("fault", WRONG)
def test_a_planted_wrong_value_is_found_by_the_oracle(fault: str) -> None:
    feature = WRONG[fault]
    found = wrong_against_oracle(made("flat" if "stood" in fault else "bitcoin", 7, 620), range(0, 620, 31), [feature])
    assert {name for name, *_ in found} == {feature.name}


def _joined_by(monkeypatch: pytest.MonkeyPatch, **wrong: object) -> None:
    """Let the kernel join quotes to trades with these arguments instead of its own."""
    join = pl.DataFrame.join_asof

    def joined(*args: Any, **kwargs: Any) -> pl.DataFrame:
        return join(*args, **kwargs | wrong)

    monkeypatch.setattr(pl.DataFrame, "join_asof", joined)


@pytest.mark.parametrize("market", ["bitcoin", "quotes_without_sequence"])
def test_a_planted_quote_that_is_not_strictly_before_is_found_by_the_oracle(
    market: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_quotes = [one for one in ALL if one.group == "quotes"]
    tape = made(market, 7, 200)
    assert wrong_against_oracle(tape, range(200), of_quotes) == []
    _joined_by(monkeypatch, allow_exact_matches=True)
    assert {"best_bid", "quote_age_ms"} <= {name for name, *_ in wrong_against_oracle(tape, range(200), of_quotes)}


def test_a_planted_quote_from_after_the_trade_is_found_by_truncation(monkeypatch: pytest.MonkeyPatch) -> None:
    _joined_by(monkeypatch, strategy="nearest", allow_exact_matches=True)
    changed = {
        name for cut in range(5, 60) for name in changed_by_cutting_the_future(made("bitcoin", 7, 80), cut, [_BID, _MA])
    }
    assert changed == {"best_bid"}


def test_the_exact_features_are_those_that_rounding_happens_to_once() -> None:
    doubles = {one.name for one in ALL if is_exact(one)} & {one.name for one in ALL if one.type.value == "double"}
    families = {"min", "max", "volume", "buy_volume", "sell_volume", "signed_volume"}
    assert {re.sub(r"_\d+.*", "", name) for name in doubles} == families
