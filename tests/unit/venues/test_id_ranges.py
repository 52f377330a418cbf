"""Ranges of ids behave as the sets they stand for."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from marketflow.venues import id_ranges

some = st.lists(st.tuples(st.integers(0, 30), st.integers(-1, 6)).map(lambda each: (each[0], each[0] + each[1])))


def as_set(ranges: list[tuple[int, int]]) -> set[int]:
    return {one for first, last in ranges for one in range(first, last + 1)}


@given(some, some)
def test_ranges_are_the_sets_they_stand_for(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    left, right = as_set(one), as_set(other)
    for found, expected in (
        (id_ranges.union([*one, *other]), left | right),
        (id_ranges.without(one, other), left - right),
        (id_ranges.within(one, other), left & right),
        (id_ranges.of_ids(left), left),
    ):
        assert as_set(found) == expected
        assert id_ranges.count(found) == len(expected)
        # ascending, and no two touch
        assert all(before[1] + 1 < after[0] for before, after in pairwise(found))
        assert all(id_ranges.contains(found, each) == (each in expected) for each in range(-1, 40))
