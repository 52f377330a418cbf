"""A wide table judged some hours at a time, so that memory stays small, and reported as if it were one comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from marketflow.verify.report import EXAMPLES, Comparison, Report

HOUR_US = 3_600_000_000
ROWS = 200_000
"""Rows of a batch, more only where one hour has more: some 200 MB of a table of 130 columns."""


def batches(rows_of: Mapping[int, int], most: int = ROWS) -> list[tuple[int, int]]:
    """[first, end) in µs of runs of the hours, in order, none with more rows than `most` unless it is one hour."""
    hours = sorted(rows_of)
    starts: list[int] = []
    held = 0
    for hour in hours:
        if not starts or held + rows_of[hour] > most:
            starts.append(hour)
            held = 0
        held += rows_of[hour]
    ends = [*starts[1:], hours[-1] + HOUR_US] if hours else []
    return list(zip(starts, ends, strict=True))


@dataclass(slots=True)
class Findings:
    """What the comparisons of all batches found."""

    layer: str
    table: str
    _counts: dict[str, list[int]] = field(default_factory=dict)
    _problems: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, part: Report) -> None:
        """One batch's report."""
        for one in part.comparisons:
            found = (one.compared, one.missing, one.duplicate, one.extra, one.differing)
            before = self._counts.get(one.product, [0] * len(found))
            self._counts[one.product] = [old + new for old, new in zip(before, found, strict=True)]
        for problem in part.problems:
            self._name(problem.product, problem.kind, problem.count, problem.examples)

    def differing(self, product: str, example: str) -> None:
        """One more row of a product that was compared and is wrong."""
        self._counts[product][-1] += 1
        self._name(product, "differing", 1, (example,))

    def _name(self, product: str, kind: str, count: int, examples: Iterable[str]) -> None:
        key = (product, kind)
        self._numbers[key] = self._numbers.get(key, 0) + count
        self._problems.setdefault(key, []).extend(examples)

    def report(self, report: Report) -> None:
        """Everything, by product, into the run's report."""
        for product, counts in sorted(self._counts.items()):
            report.comparisons.append(Comparison(self.layer, self.table, product, *counts))
        for product, kind in sorted(self._problems):
            examples = self._problems[product, kind][:EXAMPLES]
            report.problem(self.layer, self.table, product, kind, *examples, count=self._numbers[product, kind])
