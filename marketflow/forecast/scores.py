"""What a forecast's hits are worth beside guesses that need no model, in numbers and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from marketflow.forecast.rows import Flags, Floats

BASELINES = {
    "coin_flip": "heads or tails",
    "majority": "the direction that was more frequent in training",
    "last_direction": "the last change of the price repeats",
    "reversed": "the last change of the price is taken back",
    "taker": "the price follows the last taker: up after a buy",
    # Roll (1984): a price that jumps between bid and ask without going anywhere
    "bounce": "the price goes back to the other side of the book: down after a buy",
}
# a gain of two standard errors comes about by chance in one of forty forecasts that know nothing
NEEDED_ERRORS = 2.0
# what was called impossible and came costs 36 nats, not an infinity
_LEAST_PROBABILITY = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows that were foretold by a model that had not seen them.

    `probability` is the model's of a rise; `base_rate` the share of rises in that model's training.
    """

    probability: Floats
    base_rate: Floats
    up: Flags
    last_up: Flags
    buy: Flags
    settled: Flags
    move_bps: Floats

    @staticmethod
    def together(parts: list[Judged]) -> Judged:
        """Several tests as one."""
        return Judged(*(np.concatenate([getattr(one, each.name) for one in parts]) for each in fields(Judged)))

    def only_settled(self) -> Judged:
        """The rows that somebody could have acted on."""
        return Judged(*(getattr(self, each.name)[self.settled] for each in fields(self)))

    def guesses(self) -> dict[str, Flags]:
        """What each baseline says; the coin says nothing that could be compared row by row."""
        return {
            "majority": self.base_rate >= 0.5,
            "last_direction": self.last_up,
            "reversed": ~self.last_up,
            "taker": self.buy,
            "bounce": ~self.buy,
        }


@dataclass(frozen=True, slots=True)
class Gain:
    """A baseline's accuracy, the model's gain over it, and the gain's standard error if neither were better."""

    accuracy: float
    gain: float
    standard_error: float

    @property
    def is_beaten(self) -> bool:
        """By more than noise."""
        return self.errors > NEEDED_ERRORS

    @property
    def errors(self) -> float:
        """The gain in standard errors; 0 where model and baseline say the same of every row."""
        return self.gain / self.standard_error if self.standard_error else 0.0


@dataclass(frozen=True, slots=True)
class Score:
    """How well rows were foretold. Log-loss in nats; `auc` is None where all went the same way."""

    rows: int
    effective_rows: float
    accuracy: float
    log_loss: float
    auc: float | None
    base_rate_log_loss: float
    median_move_bps: float
    baselines: dict[str, Gain]

    @property
    def hardest(self) -> str:
        """The baseline over which the gain is least, in standard errors."""
        return min(self.baselines, key=lambda name: self.baselines[name].errors)

    @property
    def beats_baselines(self) -> bool:
        """Whether the model is better than every baseline by more than noise."""
        return all(one.is_beaten for one in self.baselines.values())

    def __str__(self) -> str:
        """The comparison that decides, and what chance may bring."""
        one = self.baselines[self.hardest]
        return (
            f"accuracy {self.accuracy:.3f}, {self.hardest} {one.accuracy:.3f}, a difference of {one.gain:+.3f} where "
            f"chance may bring {NEEDED_ERRORS * one.standard_error:.3f} (two standard errors of "
            f"{self.effective_rows:,.0f} rows that do not overlap)"
        )


def score(judged: Judged, horizon: int) -> Score:
    """Judge the rows; targets of neighbours overlap, so that only every `horizon`-th of them is counted as evidence."""
    rows = len(judged.up)
    effective = rows / horizon
    hits = (judged.probability >= 0.5) == judged.up
    accuracy = float(hits.mean())
    gains = {"coin_flip": Gain(0.5, accuracy - 0.5, float(np.sqrt(0.25 / effective)))}
    for name, guess in judged.guesses().items():
        theirs = guess == judged.up
        # McNemar: only rows on which the two disagree tell them apart; each is then a fair coin, if neither is better
        disagree = float((hits != theirs).mean())
        accuracy_of_guess = float(theirs.mean())
        error = float(np.sqrt(disagree / effective))
        gains[name] = Gain(accuracy_of_guess, accuracy - accuracy_of_guess, error)
    return Score(
        rows=rows,
        effective_rows=effective,
        accuracy=accuracy,
        log_loss=log_loss(judged.probability, judged.up),
        auc=area_under_curve(judged.probability, judged.up),
        base_rate_log_loss=log_loss(judged.base_rate, judged.up),
        median_move_bps=float(np.median(judged.move_bps)),
        baselines={name: gains[name] for name in BASELINES},
    )


def log_loss(probability: Floats, up: Flags) -> float:
    """Mean of −ln of the probability given to what came, in nats."""
    given = np.where(up, probability, 1 - probability)
    return float(-np.log(np.clip(given, _LEAST_PROBABILITY, 1)).mean())


def area_under_curve(probability: Floats, up: Flags) -> float | None:
    """The chance that a rise was given a higher probability than a fall was; ties count half."""
    rises, falls = int(up.sum()), int((~up).sum())
    if not rises or not falls:
        return None
    _, place, counts = np.unique(probability, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[up].sum() - rises * (rises + 1) / 2) / (rises * falls))
