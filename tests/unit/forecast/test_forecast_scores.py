"""Scores equal scikit-learn's, and a guess is beaten only by more than chance brings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics

from marketflow.forecast.scores import BASELINES, Judged, area_under_curve, log_loss, score


def judged(seed: int, rows: int = 600, knowledge: float = 0.0) -> Judged:
    """Coins; the model knows the given share of them."""
    chance = np.random.default_rng(seed)
    up = chance.random(rows) < 0.55
    # few different values, so that there are ties
    guess = np.round(chance.random(rows), 1)
    probability = np.where(chance.random(rows) < knowledge, up * 0.8 + 0.1, guess)
    flags = [chance.random(rows) < 0.5 for _ in range(3)]
    return Judged(probability, np.full(rows, 0.52), up, flags[0], flags[1], flags[2], chance.random(rows))


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    one = judged(seed, knowledge=0.2)
    assert log_loss(one.probability, one.up) == pytest.approx(metrics.log_loss(one.up, one.probability), rel=1e-9)
    assert area_under_curve(one.probability, one.up) == pytest.approx(metrics.roc_auc_score(one.up, one.probability))
    found = score(one, 10)
    assert found.accuracy == metrics.accuracy_score(one.up, one.probability >= 0.5)
    assert found.baselines["last_direction"].accuracy == metrics.accuracy_score(one.up, one.last_up)
    assert found.baselines["reversed"].accuracy == pytest.approx(1 - found.baselines["last_direction"].accuracy)
    assert found.baselines["taker"].accuracy == metrics.accuracy_score(one.up, one.buy)
    assert found.baselines["majority"].accuracy == one.up.mean()
    assert list(found.baselines) == list(BASELINES)


def test_a_standard_error_is_that_of_the_rows_that_do_not_overlap() -> None:
    one = judged(1)
    for horizon in (1, 10):
        coin = score(one, horizon).baselines["coin_flip"]
        assert coin.standard_error == pytest.approx(0.5 / math.sqrt(600 / horizon))
    hits, theirs = (one.probability >= 0.5) == one.up, one.last_up == one.up
    differing = sum(bool(a != b) for a, b in zip(hits, theirs, strict=True))
    assert score(one, 10).baselines["last_direction"].standard_error == pytest.approx(math.sqrt(differing / 600 / 60))


def test_models_that_know_nothing_seldom_beat_anything_and_one_that_knows_does() -> None:
    # six baselines must all be beaten by two errors: less than one in forty
    assert sum(score(judged(seed), 1).beats_baselines for seed in range(200)) <= 5
    assert all(score(judged(seed, knowledge=0.5), 1).beats_baselines for seed in range(20))
    # the same knowledge of so few independent rows is no evidence
    assert not any(score(judged(seed, knowledge=0.5), 200).beats_baselines for seed in range(20))


def test_a_model_that_says_what_a_guess_says_does_not_beat_it() -> None:
    one = judged(3)
    same = Judged(one.up * 1.0, one.base_rate, one.up, one.up, one.buy, one.settled, one.move_bps)
    found = score(same, 1)
    assert found.baselines["last_direction"].gain == found.baselines["last_direction"].errors == 0
    assert (found.hardest, found.beats_baselines, found.accuracy) == ("last_direction", False, 1.0)


def test_where_all_went_one_way_there_is_no_curve() -> None:
    assert area_under_curve(np.array([0.1, 0.9]), np.array([True, True])) is None
