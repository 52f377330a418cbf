"""Two tables of the workspace, row for row: what is missing, double, extra or different, by product and key."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

from dataclasses import dataclass, field

from marketflow.verify.report import EXAMPLES, Comparison, Report
from marketflow.verify.sources import Workspace

KINDS = ("missing", "duplicate", "extra", "differing")
TIMES = frozenset(
    {
        "ts",
        "day",
        "open_ts",
        "event_ts",
        "hour",
        "snapshot_ts",
        "last_updated",
        "received_at",
        "polled_at",
        "poll_started_at",
    }
    | {"observed_at", "ingested_at"}
)
"""Columns that hold µs since the epoch in the workspace and are shown as times."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: a table of a layer, its key, its exact columns, and its measures with their tolerance in SQL.

    `product` is an SQL expression over the key columns.
    """

    layer: str
    table: str
    key: tuple[str, ...]
    exact: tuple[str, ...]
    product: str
    approximate: dict[str, str] = field(default_factory=dict)


def shown(expression: str, column: str) -> str:
    """SQL text of a value, as a person would write it; nothing for a null."""
    if column in TIMES:
        return f"coalesce(strftime(make_timestamp({expression}), '%Y-%m-%dT%H:%M:%S.%fZ'), 'null')"
    return f"coalesce({expression}::varchar, 'null')"


def _difference(subject: Subject, column: str) -> str:
    expected, actual = f'e."{column}"', f'a."{column}"'
    differs = f"{expected} is distinct from {actual}"
    if column in subject.approximate:
        slack = subject.approximate[column]
        bound = f"1e-9 * greatest(abs({expected}), abs({actual})) + {slack}"
        # a null beside a number is a difference; a comparison with NaN is none, so it must be asked the other way round
        differs = f"({differs} and not coalesce(abs({expected} - {actual}) <= {bound}, false))"
    text = f"'{column}: expected ' || {shown(expected, column)} || ', found ' || {shown(actual, column)}"
    return f"case when {differs} then {text} end"


def compare(
    space: Workspace, report: Report, subject: Subject, expected: str, actual: str, *, known_gaps: str | None = None
) -> str:
    """Compare two tables by key, add what was found to the report, and return the name of the table of faults.

    Keys of `expected` are unique. A key that `actual` holds twice is a duplicate and not also a difference.
    `known_gaps` is a table (product, count) of keys that are missing with a reason and are not in `expected`.
    """
    columns = (*subject.key, *subject.exact, *subject.approximate)
    keys = ", ".join(f'"{name}"' for name in subject.key)
    firsts = ", ".join(f'first("{name}") as "{name}"' for name in columns if name not in subject.key)
    both = ", ".join(f'coalesce(e."{name}", a."{name}") as "{name}"' for name in subject.key)
    matches = " and ".join(f'e."{name}" is not distinct from a."{name}"' for name in subject.key)
    differences = "".join(f", {_difference(subject, name)}" for name in columns if name not in subject.key)
    faults = f"faults_{subject.layer}_{subject.table.replace('.', '_')}"
    space.table(
        "verdicts",
        f"""
        with a as (select {keys}, count(*) as copies, {firsts} from {actual} group by {keys}),
        e as (select *, true as present from {expected})
        select {both}, a.copies, e.present, concat_ws('; ', null{differences}) as differences,
          case when a.copies is null then 'missing' when e.present is null then 'extra'
            when a.copies > 1 then 'duplicate' when differences <> '' then 'differing' end as kind
        from e full join a on {matches}
        """,
    )
    named = " || ' ' || ".join(shown(f'"{name}"', name) for name in subject.key)
    space.table(
        faults,
        f"""
        select *, {subject.product} as product, {named} || case when kind = 'differing' then ' (' || differences || ')'
          when kind = 'duplicate' then ' (' || copies || ' copies)' else '' end as example
        from verdicts where kind is not null
        """,
    )
    _count(space, report, subject, faults, known_gaps)
    return faults


def _count(space: Workspace, report: Report, subject: Subject, faults: str, known_gaps: str | None) -> None:
    kinds = ", ".join(f"count(*) filter (kind = '{kind}')" for kind in KINDS)
    counts = {
        row[0]: list(row[1:])
        for row in space.rows(
            f"select {subject.product} as product, count(*) filter (present and copies > 0), {kinds} "
            "from verdicts group by all"
        )
    }
    gaps = dict(space.rows(f"select product, gaps from {known_gaps}")) if known_gaps else {}
    for product in sorted({*counts, *gaps}):
        compared, missing, duplicate, extra, differing = counts.get(product, [0] * 5)
        report.comparisons.append(
            Comparison(
                *(subject.layer, subject.table, product, compared, missing, duplicate, extra, differing),
                known_gap=gaps.get(product, 0),
            )
        )
    keys = ", ".join(f'"{name}"' for name in subject.key)
    for product, kind, number, examples in space.rows(
        f"select product, kind, count(*), list(example order by {keys})[:{EXAMPLES}] from {faults} "
        "group by all order by all"
    ):
        report.problem(subject.layer, subject.table, product, kind, *examples, count=number)
