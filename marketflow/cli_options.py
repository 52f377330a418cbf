"""What several commands' options may be: numbers so large that PostgreSQL or a date could not hold them are refused."""

from __future__ import annotations

import math

import typer

MOST_ROWS = 1_000_000
# a century
MOST_HOURS = 876_600.0


def finite(value: float) -> float:
    """Callback of an option; a range alone lets `nan` through."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number of hours")
    return value
