"""Train on the past, judge on what followed, fold by fold; then one model of all rows. Same rows, same bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from marketflow.errors import InputError
from marketflow.features.splits import Split, walk_forward
from marketflow.forecast.openmp import lightgbm
from marketflow.forecast.rows import Rows
from marketflow.forecast.scores import Judged, Score, score

FOLDS = 5
EMBARGO = 100
"""Rows before a test, beside those purged, that are not learned from: order flow keeps its direction for that long."""
LEAST_TRAIN_ROWS = 500
ROUNDS = 100
PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    # small on purpose: a market's signal is faint, and a large tree learns the noise
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.8,
    "lambda_l2": 1.0,
    # one thread and one order of sums, or the last bits differ between two runs
    "seed": 7,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}


@dataclass(frozen=True, slots=True)
class Fold:
    """One test and its training rows, by row number."""

    split: Split
    score: Score


@dataclass(frozen=True, slots=True)
class Trained:
    """A model of all rows, and how well models of the same kind foretold what they had not seen."""

    rows: Rows
    model: str
    folds: tuple[Fold, ...]
    overall: Score
    settled: Score | None

    @property
    def beats_baselines(self) -> bool:
        """Whether it is better than every guess by more than noise: of all rows, and of those one could act on."""
        return self.overall.beats_baselines and self.settled is not None and self.settled.beats_baselines

    @property
    def verdict(self) -> str:
        """What the score shows, in plain sentences."""
        said = "It beats" if self.beats_baselines else "It does not beat"
        one = self.overall
        acted = (
            f"Of the {self.settled.rows:,} of them after which nothing more came at the same instant, the only "
            f"ones that one could act on: {self.settled}."
            if self.settled
            else "None of them was the last trade of its instant, so that nobody could have acted on any."
        )
        better = "better" if one.log_loss < one.base_rate_log_loss else "no better"
        return (
            f"{said} the baselines by more than noise. Of {one.rows:,} rows it had not seen: {one}. {acted} Its "
            f"probabilities are {better} than the base rate's: log-loss {one.log_loss:.3f}, "
            f"{one.base_rate_log_loss:.3f}. Half of the moves are smaller than {one.median_move_bps:.3f} basis points, "
            "before any fee."
        )

    @property
    def sha256(self) -> str:
        """Of the model's bytes."""
        return hashlib.sha256(self.model.encode()).hexdigest()


def rows_needed(horizon: int) -> int:
    """How few rows are enough."""
    return (FOLDS + 1) * (horizon + EMBARGO + LEAST_TRAIN_ROWS)


def train(rows: Rows) -> Trained:
    """Walk forward with purged and embargoed splits, then train on everything.

    Raises:
        InputError: too few rows; says how many are needed.
        SetupError: LightGBM cannot be loaded here.
    """
    if len(rows) < rows_needed(rows.horizon):
        raise InputError(
            f"{len(rows):,} rows of {rows.venue} {rows.product_id} are too few: {rows_needed(rows.horizon):,} final "
            f"rows with a target are needed ({FOLDS} tests, each after {LEAST_TRAIN_ROWS} rows to learn from, with "
            f"{rows.horizon} purged and {EMBARGO} embargoed between); {rows.not_final:,} are not final yet, "
            f"{rows.without_target:,} have no target"
        )
    splits = walk_forward(len(rows), FOLDS, horizon=rows.horizon, embargo=EMBARGO, least_train_rows=LEAST_TRAIN_ROWS)
    tested = [(split, _foretold(rows, split)) for split in splits]
    folds = tuple(Fold(split, score(judged, rows.horizon)) for split, judged in tested)
    together = Judged.together([judged for _, judged in tested])
    settled = score(together.only_settled(), rows.horizon) if together.settled.any() else None
    model = _fitted(rows, slice(None)).model_to_string()
    return Trained(rows, model, folds, score(together, rows.horizon), settled)


def _foretold(rows: Rows, split: Split) -> Judged:
    """The test's rows as a model of the training rows sees them."""
    tested = rows.matrix[split.test]
    return Judged(
        probability=np.asarray(_fitted(rows, split.train).predict(tested), dtype=np.float64),
        base_rate=np.full(len(tested), rows.up[split.train].mean()),
        up=rows.up[split.test],
        last_up=rows.last_up[split.test],
        buy=rows.buy[split.test],
        settled=rows.settled[split.test],
        move_bps=rows.move_bps[split.test],
    )


def _fitted(rows: Rows, chosen: slice) -> Any:
    """A booster of these rows."""
    library = lightgbm()
    data = library.Dataset(
        rows.matrix[chosen], label=rows.up[chosen].astype(np.float64), feature_name=list(rows.features)
    )
    return library.train(PARAMETERS, data, num_boost_round=ROUNDS)
