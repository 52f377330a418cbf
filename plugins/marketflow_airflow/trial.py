"""Whether this process is `airflow dags test`: a run that somebody watches, in a metadata database of its own."""

from __future__ import annotations

import sys


def is_trial() -> bool:
    """No scheduler looks at such a run, nobody can be asked in it, and nobody else is told of its tasks."""
    return sys.argv[1:3] == ["dags", "test"]
