"""A split leaks nothing: no row that is learned from has a target that reads into the test, whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.errors import InputError
from marketflow.features.splits import walk_forward

NUMBERS = {
    "rows": st.integers(0, 5_000),
    "folds": st.integers(1, 8),
    "horizon": st.integers(0, 60),
    "embargo": st.integers(0, 40),
    "train_rows": st.none() | st.integers(1, 600),
}


@given(**NUMBERS)
def test_no_target_of_a_training_row_reaches_the_test_or_the_embargo_before_it(
    rows: int, folds: int, horizon: int, embargo: int, train_rows: int | None
) -> None:
    try:
        splits = list(walk_forward(rows, folds, horizon=horizon, embargo=embargo, train_rows=train_rows))
    except InputError:
        assert rows // (folds + 1) <= horizon + embargo
        return
    assert len(splits) == folds
    tested: list[int] = []
    for split in splits:
        learned, judged = range(rows)[split.train], range(rows)[split.test]
        assert learned
        assert judged
        assert max(learned) + horizon + embargo < min(judged)
        assert train_rows is None or len(learned) <= train_rows
        tested += judged
    # every row after the first block is judged once
    assert tested == list(range(rows // (folds + 1), rows))


def test_it_walks_forward_and_grows_or_slides() -> None:
    growing = list(walk_forward(1_000, 4, horizon=50))
    assert [(s.train_start, s.train_end, s.test_start, s.test_end) for s in growing] == [
        (0, 150, 200, 400),
        (0, 350, 400, 600),
        (0, 550, 600, 800),
        (0, 750, 800, 1_000),
    ]
    sliding = list(walk_forward(1_000, 4, horizon=50, embargo=10, train_rows=100))
    assert [(s.train_start, s.train_end) for s in sliding] == [(40, 140), (240, 340), (440, 540), (640, 740)]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rows": 100}, "100 rows are too few for 5 folds: a block has 16, of which 50 are purged and 0 embargoed"),
        ({"rows": 1_000, "least_train_rows": 500}, "at least 500 must be left to train on"),
        ({"rows": 1_000, "folds": 0}, "folds and least_train_rows at least 1"),
        ({"rows": 1_000, "horizon": -1}, "must not be negative"),
        ({"rows": 1_000, "train_rows": 0}, "train_rows is 0: at least 1 must be left"),
        ({"rows": 1_000, "train_rows": -5}, "train_rows is -5: at least 1"),
        ({"rows": 1_000, "train_rows": 10, "least_train_rows": 20}, "train_rows is 10: at least 20"),
    ],
)
def test_too_few_rows_or_a_wrong_number_are_said(wrong: dict[str, int], says: str) -> None:
    with pytest.raises(InputError, match=says):
        list(walk_forward(**wrong))
