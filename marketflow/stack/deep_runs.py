"""When what is done once a day was last done, so that a machine that sleeps at its hour does it when it wakes.

A file a kind of work under `<home>/upkeep`; where nothing is known, the count begins with the first question.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from marketflow.settings import Settings

OVERDUE_AFTER = timedelta(hours=26)
LAKE, AIRFLOW = "lake", "airflow"


def done(settings: Settings, what: str, at: datetime | None = None) -> None:
    """Remember that it was done."""
    path = _path(settings, what)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text((at or datetime.now(UTC)).isoformat())
    new.replace(path)


def is_overdue(settings: Settings, what: str, now: datetime | None = None) -> bool:
    """Whether its last time was missed."""
    moment = now or datetime.now(UTC)
    try:
        last = datetime.fromisoformat(_path(settings, what).read_text())
    except FileNotFoundError:
        done(settings, what, moment)
        return False
    return moment - last > OVERDUE_AFTER


def _path(settings: Settings, what: str) -> Path:
    return settings.home / "upkeep" / what
