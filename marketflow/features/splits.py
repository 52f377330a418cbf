"""Walk-forward splits of a tape that leak nothing: purged of the target's horizon, with an embargo behind each test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from marketflow.errors import InputError
from marketflow.features.trades.tape import HORIZON


@dataclass(frozen=True, slots=True)
class Split:
    """Half-open ranges of row numbers; the rows between them belong to neither."""

    train_start: int
    train_end: int
    test_start: int
    test_end: int

    @property
    def train(self) -> slice:
        """The rows to learn from."""
        return slice(self.train_start, self.train_end)

    @property
    def test(self) -> slice:
        """The rows to judge by."""
        return slice(self.test_start, self.test_end)


def walk_forward(
    rows: int,
    folds: int = 5,
    *,
    horizon: int = HORIZON,
    embargo: int = 0,
    train_rows: int | None = None,
    least_train_rows: int = 1,
) -> Iterator[Split]:
    """Consecutive tests that each follow their training rows; `rows` are one product's, in order of trade_id.

    The first of folds + 1 equal blocks is for training alone; each later one is a test. A row's target reads `horizon`
    rows ahead, so the last `horizon` rows before a test are purged from its training, and `embargo` rows more, for what
    is correlated over a longer time. `train_rows` limits training to a window that slides with the test; without it
    training begins with row 0 and grows.

    Source: López de Prado (2018), Advances in Financial Machine Learning, chapter 7.

    Raises:
        InputError: fewer rows than that takes, or a number that means nothing.
    """
    if rows < 0 or folds < 1 or horizon < 0 or embargo < 0 or least_train_rows < 1:
        raise InputError("rows, horizon and embargo must not be negative, folds and least_train_rows at least 1")
    if train_rows is not None and train_rows < least_train_rows:
        raise InputError(f"train_rows is {train_rows:,}: at least {least_train_rows:,} must be left to train on")
    block = rows // (folds + 1)
    if block - horizon - embargo < least_train_rows:
        raise InputError(
            f"{rows:,} rows are too few for {folds} folds: a block has {block:,}, of which {horizon} are purged and "
            f"{embargo} embargoed; at least {least_train_rows:,} must be left to train on"
        )
    for fold in range(1, folds + 1):
        test_start = fold * block
        test_end = rows if fold == folds else test_start + block
        train_end = test_start - horizon - embargo
        train_start = 0 if train_rows is None else max(0, train_end - train_rows)
        yield Split(train_start, train_end, test_start, test_end)
