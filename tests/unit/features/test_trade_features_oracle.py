from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.features.trades.catalogue import CATALOGUE, FEATURES, TARGETS
from marketflow.verify.features_oracle import FORMULAS, SCALES
from tests.unit.features.trade_checks import ALL, computed, wrong_against_oracle
from tests.unit.features.trade_tapes import MARKETS, Tape, made, short_tapes

# one row either side of where each window fills, and of where the horizons end
EDGES = (0, 1, 4, 5, 8, 9, 10, 48, 49, 50, 98, 99, 100, 370, 371, 497, 498, 499, 500, 501, -51, -50, -11, -10, -1)


def test_the_oracle_has_a_formula_for_every_feature_and_for_nothing_else() -> None:
    assert set(FORMULAS) == set(CATALOGUE)
    assert set(SCALES) < set(CATALOGUE)
    assert [*FEATURES, *TARGETS] == list(ALL)


@pytest.mark.parametrize("market", sorted(MARKETS))
def test_every_feature_equals_the_oracle_where_windows_fill_and_horizons_end(market: str) -> None:
    tape = made(market, 1, 640)
    rows = sorted({edge % 640 for edge in (*EDGES, 313, 555)})
    assert wrong_against_oracle(tape, rows) == []


@given(short_tapes(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_feature_of_a_short_tape_equals_the_oracle(tape: Tape, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(tape.trades) - 1), label="row")
    assert wrong_against_oracle(tape, [row, len(tape.trades) - 1]) == []


@given(st.sampled_from(sorted(MARKETS)), st.integers(0, 10_000), st.integers(500, 700), st.data())
@settings(max_examples=12, deadline=None)
def test_every_feature_of_a_row_with_full_windows_equals_the_oracle(
    market: str, seed: int, length: int, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, length - 1), label="row")
    assert wrong_against_oracle(made(market, seed, length), [row]) == []


def test_each_market_shows_what_it_was_made_for() -> None:
    """The tapes above reach the null rules and the odd values: else the oracle would agree about nothing."""
    seen = {market: computed(made(market, 1, 640)) for market in MARKETS}
    nulls = {
        market: dict(zip(frame.columns, frame.tail(60).null_count().row(0), strict=True))
        for market, frame in seen.items()
    }
    assert nulls["flat"]["zscore_500"] == nulls["flat"]["price_position_10"] == nulls["flat"]["rsi_14_trades"] == 60
    assert nulls["buyers_only"]["buy_sell_ratio_50"] == nulls["no_quotes"]["best_bid"] == 60
    assert 0 < nulls["penny"]["trades_per_second_10"] < 60
    assert 0 < nulls["rare_quotes"]["quote_age_ms"] < 60
    assert nulls["late_and_crossed_quotes"]["microprice"] > nulls["late_and_crossed_quotes"]["mid_price"] > 0
    assert (seen["late_and_crossed_quotes"]["bid_ask_spread"] < 0).any()
    assert (seen["times_run_backwards"]["seconds_since_previous"] < 0).any()
    assert set(seen["trades_partly_without_sequence"]["quote_join"].drop_nulls()) == {"sequence", "event_ts"}
    assert set(seen["quotes_without_sequence"]["quote_join"].drop_nulls()) == {"event_ts"}
    assert seen["full_of_holes"]["gaps_in_window_500"].max() > 50
    assert seen["buyers_only"]["aggressor_run_length"].max() == 500
    assert seen["bitcoin"]["target_direction_10"].unique().sort().to_list() == [None, 0, 1]
    assert set(seen["bitcoin"]["is_weekend"]) == {True, False}
