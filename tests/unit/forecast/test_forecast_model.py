"""A forecast beats guesses where there is something to foretell, says so where there is not, and learns no future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from forecast_markets import TRADES, rows

from marketflow.errors import InputError
from marketflow.features.trades.catalogue import TARGETS
from marketflow.forecast import train as training
from marketflow.forecast.rows import Rows, choose, usable_features
from marketflow.forecast.train import Trained, train


@pytest.fixture(scope="module")
def momentum() -> Trained:
    return train(choose(rows("momentum"), 10))


def test_a_market_with_momentum_is_foretold_and_every_guess_is_beaten(momentum: Trained) -> None:
    assert momentum.beats_baselines
    assert momentum.verdict.startswith("It beats the baselines by more than noise. Of ")
    assert all(one.errors > 3 for one in momentum.overall.baselines.values())
    assert momentum.overall.accuracy > 0.7
    assert momentum.overall.log_loss < momentum.overall.base_rate_log_loss


@pytest.mark.parametrize("horizon", [10, 50])
def test_a_random_walk_is_said_not_to_be_beaten(horizon: int) -> None:
    trained = train(choose(rows("walk"), horizon))
    assert not trained.beats_baselines
    assert trained.verdict.startswith("It does not beat the baselines by more than noise. Of ")
    assert "probabilities are no better than the base rate's" in trained.verdict


def test_tests_cover_each_row_after_the_first_block_once_and_overlap_is_counted(momentum: Trained) -> None:
    count = len(momentum.rows)
    assert [fold.split.test_start for fold in momentum.folds] == [count // 6 * fold for fold in range(1, 6)]
    assert momentum.overall.rows == sum(fold.score.rows for fold in momentum.folds) == count - count // 6
    assert momentum.overall.effective_rows == momentum.overall.rows / 10


def test_rows_purged_and_embargoed_before_a_test_teach_it_nothing(momentum: Trained) -> None:
    """Turned upside down they change no score; were they learned from, the first test's model would be another."""
    chosen = momentum.rows
    start = len(chosen) // 6
    assert momentum.folds[0].split.test_start == start

    def first_test_with(turned: slice) -> float:
        up = chosen.up.copy()
        up[turned] = ~up[turned]
        split = momentum.folds[0].split
        return float(training._foretold(replace(chosen, up=up), split).probability.sum())

    untouched = first_test_with(slice(0, 0))
    assert first_test_with(slice(start - 10 - 100, start)) == untouched
    assert first_test_with(slice(start - 10 - 160, start - 10 - 100)) != untouched
    for fold in momentum.folds:
        assert fold.split.test_start - fold.split.train_end == 10 + 100


def test_the_same_rows_in_any_order_give_the_same_bytes(momentum: Trained) -> None:
    again = train(choose(rows("momentum").sample(fraction=1, shuffle=True, seed=3), 10))
    assert again.model == momentum.model
    assert again.sha256 == momentum.sha256
    assert again.folds == momentum.folds
    other = train(choose(rows("momentum").filter(pl.col("trade_id") != 2_000), 10))
    assert other.sha256 != momentum.sha256


@pytest.mark.parametrize("leak", [one.name for one in TARGETS])
def test_what_reads_the_future_is_refused_as_a_feature(leak: str) -> None:
    with pytest.raises(InputError, match=f"{leak} reads (10|50) trades ahead: it is a target"):
        choose(rows("walk"), 10, ("return_10", leak))


def test_what_is_no_feature_is_refused_too() -> None:
    for names, why in ((("price",), "is no feature of the catalogue"), (("quote_join",), "is text"), ((), "at least")):
        with pytest.raises(InputError, match=why):
            choose(rows("walk"), 10, names)


def test_no_feature_in_use_names_the_moment() -> None:
    """A column that is nearly the price would let a tree learn the tape by heart; so would the clock."""
    frame = rows("walk")
    price = frame["price"].cast(pl.Float64)
    for name in usable_features():
        values = frame[name].cast(pl.Float64)
        if values.null_count() < len(values):
            assert abs(float((values / price - 1).median())) > 0.5, name
    assert not {"hour_of_day", "weekday_sin", "is_weekend", "best_bid"} & set(usable_features())
    assert len(usable_features()) > 80


def test_only_final_rows_with_a_target_are_taken_and_the_rest_is_counted() -> None:
    frame = rows("walk").with_columns(
        target_direction_10=pl.when(pl.col("trade_id") % 7 > 0).then("target_direction_10")
    )
    chosen: Rows = choose(frame, 10)
    final = [row for row in frame.iter_rows(named=True) if row["is_final"]]
    targets = [row["target_direction_10"] for row in final if row["target_direction_10"] is not None]
    assert chosen.up.tolist() == [one == 1 for one in targets]
    assert (chosen.not_final, chosen.without_target) == (50, len(final) - len(targets))
    assert frame.height == TRADES - 500


def test_the_last_direction_and_the_last_trade_of_an_instant_are_those_of_the_tape() -> None:
    frame = rows("walk", per_instant=4)
    chosen = choose(frame, 10)
    last, expected = True, []
    for row in frame.iter_rows(named=True):
        last = row["price_change_1"] > 0 if row["price_change_1"] else last
        if row["is_final"] and row["target_direction_10"] is not None:
            # trade 100 is the first of its instant
            expected.append((last, row["taker_side"] == "buy", (row["trade_id"] - 100) % 4 == 3))
    found = zip(chosen.last_up.tolist(), chosen.buy.tolist(), chosen.settled.tolist(), strict=True)
    assert list(found) == expected


def test_quotes_that_are_not_there_are_no_hindrance() -> None:
    chosen = choose(rows("walk"), 10)
    assert np.isnan(chosen.matrix[:, chosen.features.index("spread_bps")]).all()


def test_what_cannot_be_trained_on_is_said() -> None:
    frame = rows("walk")
    two = pl.concat([frame, frame.with_columns(product_id=pl.lit("ETH-USDT"))])
    for given, horizon, why in (
        (frame.clear(), 10, "there are no rows"),
        (two, 10, "of one market; here are binance BTC-USDT, binance ETH-USDT"),
        (frame.with_columns(is_final=False), 10, "none of the 4,500 rows of binance BTC-USDT is final"),
        (frame.with_columns(target_direction_10=None), 10, "none of the 4,450 final rows .* has target_direction_10"),
        (frame.drop("is_final", "rsi_14_trades"), 10, "no column is_final, rsi_14_trades"),
        (frame, 20, "horizon 20: there is 10 and 50"),
        (pl.concat([frame, frame.head(3)]), 10, "3 rows of binance BTC-USDT tell of a trade that another row tells of"),
        (frame.with_columns(trade_id=pl.lit(None, pl.Int64)), 10, "trade_id is null in 4,500 rows"),
        (frame.with_columns(is_buy=pl.lit(None, pl.Boolean)), 10, "is_buy is null in 4,500 rows"),
        (frame.with_columns(target_direction_10=pl.lit(-1)), 10, "target_direction_10 is -1 in 4,500 rows"),
    ):
        with pytest.raises(InputError, match=why):
            choose(given, horizon)
    few = choose(frame.head(2_000), 50)
    with pytest.raises(InputError, match="are too few: 3,900 final rows with a target are needed"):
        train(few)
