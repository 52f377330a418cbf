"""Trade ids as ranges, first and last inclusive: a hole of a long outage is two numbers, not a million."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Range = tuple[int, int]


def union(ranges: Iterable[Range]) -> list[Range]:
    """The same ids, ascending and disjoint; ranges that touch become one."""
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def of_ids(ids: Iterable[int]) -> list[Range]:
    """Single ids as ranges."""
    return union((each, each) for each in ids)


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """What of `ranges` no range of `taken` covers."""
    left: list[Range] = []
    gone = union(taken)
    for first, last in union(ranges):
        at = max(0, bisect_right(gone, first, key=lambda each: each[0]) - 1)
        while at < len(gone) and gone[at][0] <= last:
            if first < gone[at][0]:
                left.append((first, gone[at][0] - 1))
            first = max(first, gone[at][1] + 1)
            at += 1
        if first <= last:
            left.append((first, last))
    return left


def within(ranges: Iterable[Range], others: Iterable[Range]) -> list[Range]:
    """What both cover."""
    kept = union(ranges)
    return without(kept, without(kept, others))


def contains(ranges: list[Range], one: int) -> bool:
    """Whether ascending, disjoint `ranges` hold an id."""
    at = bisect_right(ranges, one, key=lambda each: each[0]) - 1
    return at >= 0 and one <= ranges[at][1]


def count(ranges: Iterable[Range]) -> int:
    """How many ids disjoint ranges hold."""
    return sum(last - first + 1 for first, last in ranges)
