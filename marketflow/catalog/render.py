"""Rows as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from marketflow.catalog.queries import SavedQuery

_WIDEST = 96


def cell(value: Any) -> str:
    """One value as a person reads it: no trailing zeros, times to the second, bytes as text."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        text = format(value, "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return str(value)


def age(seconds: float) -> str:
    """A length of time as a person says it: 40 s, 12 min, 3.5 h, 9 days."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def distinct(columns: Sequence[str]) -> list[str]:
    """The names, each once: a second `a` is `a_2`."""
    names: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Aligned columns, numbers to the right, cells cut at 96 characters, and the number of rows."""
    texts = [[cell(value)[:_WIDEST].replace("\n", " ") for value in row] for row in rows]
    numeric = [
        bool(rows) and all(row[i] is None or isinstance(row[i], int | float | Decimal) for row in rows)
        for i in range(len(columns))
    ]
    widths = [max(len(name), *(len(row[i]) for row in texts), 0) for i, name in enumerate(columns)]

    def line(parts: Sequence[str]) -> str:
        return "  ".join(
            part.rjust(width) if right else part.ljust(width)
            for part, width, right in zip(parts, widths, numeric, strict=True)
        ).rstrip()

    rule = "  ".join("-" * width for width in widths)
    count = f"({len(rows)} row{'' if len(rows) == 1 else 's'})"
    return "\n".join([line(list(columns)), rule, *map(line, texts), count])


def records(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows that are mappings with the same keys."""
    if not rows:
        return "(0 rows)"
    columns = list(rows[0])
    return table(columns, [[row[name] for name in columns] for row in rows])


def saved_queries(queries: Mapping[str, SavedQuery]) -> str:
    """The list of `marketflow sql --list`, and how to run one."""
    rows = [
        (query.name, query.engine, query.purpose, " ".join(f"{k}={v}" for k, v in query.parameters.items()))
        for query in queries.values()
    ]
    head = table(("name", "on", "purpose", "parameters"), rows)
    return f"{head}\nRun one with: marketflow sql ohlc -s product=ETH-USD -s bar=5m"
