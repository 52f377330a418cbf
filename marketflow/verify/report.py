"""What was compared and what was found, as data: printed as a table, or as JSON where a program reads it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

EXAMPLES = 5
"""Keys named per problem: enough to look one up, few enough to read."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One product of one table against the layer before it. `compared` counts the keys that both sides hold."""

    layer: str
    table: str
    product: str
    compared: int
    missing: int = 0
    duplicate: int = 0
    extra: int = 0
    differing: int = 0
    known_gap: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of fault in one product of one table, with the first keys that show it."""

    layer: str
    table: str
    product: str
    kind: str
    count: int
    examples: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """All that a run found. `cut` is None where the end of the data is the cut (`--at-rest`)."""

    dataset: str
    cut: datetime | None = None
    complete_through: dict[str, datetime | None] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def problem(
        self, layer: str, table: str, product: str, kind: str, *examples: str, count: int | None = None
    ) -> None:
        """Add one; `count` where more were found than are named."""
        number = len(examples) if count is None else count
        self.problems.append(Problem(layer, table, product, kind, number, examples[:EXAMPLES]))

    def as_json(self) -> dict[str, Any]:
        """Plain values only; times as ISO 8601."""
        return {
            "dataset": self.dataset,
            "clean": self.clean,
            "cut": self.cut.isoformat() if self.cut else None,
            "complete_through": {
                name: moment.isoformat() if moment else None for name, moment in self.complete_through.items()
            },
            "comparisons": [asdict(one) for one in self.comparisons],
            "problems": [asdict(one) for one in self.problems],
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
        }

    def lines(self) -> list[str]:
        """The table, then each problem with its keys, then what was not judged and why."""
        header = ("layer", "table", "product", "compared", "missing", "duplicate", "extra", "differing", "known gap")
        rows = [
            tuple(
                str(value)
                for value in (
                    *(one.layer, one.table, one.product, one.compared, one.missing),
                    *(one.duplicate, one.extra, one.differing, one.known_gap),
                )
            )
            for one in self.comparisons
        ]
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
        text = [
            "  ".join(
                value.ljust(width) if column < 3 else value.rjust(width)
                for column, (value, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (header, *rows)
        ]
        for one in self.problems:
            text.append(f"{one.kind.upper()} {one.layer} {one.table} {one.product}: {one.count}")
            text.extend(f"    {example}" for example in one.examples)
        text.extend(f"note: {note}" for note in self.notes)
        verdict = "clean" if self.clean else f"NOT CLEAN: {len(self.problems)} kinds of problem"
        return [*text, f"{verdict} ({self.seconds:.1f} s)"]
