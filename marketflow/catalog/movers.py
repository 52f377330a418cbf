"""Gainers and losers as they are now, and before there are any, how far the warm-up is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from marketflow.catalog import render as text
from marketflow.catalog.queries import Result, run_on_postgres, run_saved
from marketflow.settings import Settings

NEEDED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Movers:
    """The latest ranking, or an empty one with the time from which there can be one."""

    result: Result
    first_observation: datetime | None
    snapshot_at: datetime | None

    @property
    def possible_from(self) -> datetime | None:
        """When five minutes of observations exist; None before the first."""
        return self.first_observation + NEEDED if self.first_observation else None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "movers": [dict(zip(self.result.columns, row, strict=True)) for row in self.result.rows],
            "snapshot_at": self.snapshot_at,
            "first_observation": self.first_observation,
            "possible_from": self.possible_from,
        }


def latest(settings: Settings) -> Movers:
    """Read the latest snapshot from the mart."""
    result = run_saved(settings, "movers", {})
    first = run_on_postgres(settings, "select min(last_updated) from live.asset_observation").rows[0][0]
    at = result.columns.index("snapshot_ts")
    return Movers(result, first, max((row[at] for row in result.rows), default=None))


def render(movers: Movers) -> str:
    """The ranking, or one line that says what is missing and until when."""
    if movers.result.rows:
        return text.table(movers.result.columns, movers.result.rows)
    if movers.possible_from is None:
        return "No price has arrived yet. `marketflow status` says whether producer-coingecko and market-stream run."
    left = max(timedelta(0), movers.possible_from - datetime.now(UTC))
    return (
        f"Warming up: five-minute movers exist from {movers.possible_from:%H:%M:%S} UTC on "
        f"({int(left.total_seconds())} s from now). Nothing is invented before."
    )


def watch(settings: Settings, say: Callable[[str], None], interval_s: float = 2.0) -> None:
    """Print again whenever there is a new snapshot, until interrupted."""
    shown: object = object()
    try:
        while True:
            movers = latest(settings)
            if movers.snapshot_at != shown:
                say(render(movers))
                shown = movers.snapshot_at
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return
