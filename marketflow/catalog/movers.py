"""Gainers and losers as they are now; before there are any, or after a stop, how far the warm-up is."""

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

# Polls of the last half hour; the newest one before which there was a pause too long for a five-minute change
# (300 s and the tolerance, features/prices.py) is where the present run began.
_RUN_BEGAN = """
with polls as (
    select distinct polled_at from live.asset_observation where polled_at > now() - interval '30 minutes'
),
steps as (
    select polled_at, lag(polled_at) over (order by polled_at) as before from polls
)
select max(polled_at) as began from steps where before is null or polled_at - before > make_interval(secs => $longest)
"""


@dataclass(frozen=True, slots=True)
class Movers:
    """The latest ranking, whether it is of now, and when the next can be made. An empty one before the first.

    `run_began` is the first poll since the last pause that was too long for a change over five minutes; None when
    nothing was polled for half an hour.
    """

    result: Result
    run_began: datetime | None
    snapshot_at: datetime | None
    now: datetime

    @property
    def stale_since(self) -> datetime | None:
        """From when the ranking is of another five minutes than the last; None while it is of these, or without one."""
        if self.snapshot_at is None or self.now - self.snapshot_at < NEEDED:
            return None
        return self.snapshot_at + NEEDED

    @property
    def possible_from(self) -> datetime | None:
        """When five minutes of observations without a pause exist; None while nothing is polled."""
        return self.run_began + NEEDED if self.run_began else None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "movers": [dict(zip(self.result.columns, row, strict=True)) for row in self.result.rows],
            "snapshot_at": self.snapshot_at,
            "stale_since": self.stale_since,
            "observed_since": self.run_began,
            "possible_from": self.possible_from,
        }


def latest(settings: Settings) -> Movers:
    """Read the latest snapshot from the mart."""
    result = run_saved(settings, "movers", {})
    longest = NEEDED.total_seconds() + settings.change_tolerance_s
    began = run_on_postgres(settings, _RUN_BEGAN, {"longest": longest}).rows[0][0]
    at = result.columns.index("snapshot_ts")
    return Movers(result, began, max((row[at] for row in result.rows), default=None), datetime.now(UTC))


def render(movers: Movers) -> str:
    """The ranking; above it, or instead of it, what is missing and until when."""
    lines = []
    if movers.stale_since:
        lines.append(f"STALE: this ranking is of {_when(movers.snapshot_at, movers.now)}.")
    if movers.stale_since or not movers.result.rows:
        lines.append(_outlook(movers))
    if movers.result.rows:
        lines.append(text.table(movers.result.columns, movers.result.rows))
    return "\n".join(lines)


def _outlook(movers: Movers) -> str:
    """Why there is no ranking of now, and when there will be one."""
    if movers.possible_from is None:
        return "No price arrived lately. `marketflow status` says whether producer-coingecko and market-stream run."
    left = (movers.possible_from - movers.now).total_seconds()
    if left <= 0:
        return (
            "Prices arrive, and five minutes of them exist: the next poll should rank them. If not: marketflow doctor"
        )
    return (
        f"Warming up: five-minute movers exist from {movers.possible_from:%H:%M:%S} UTC on ({int(left)} s from now). "
        "Nothing is invented before."
    )


def _when(at: datetime | None, now: datetime) -> str:
    assert at is not None  # a ranking that is stale has its time
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {text.age((now - at).total_seconds())} ago"


def watch(settings: Settings, show: Callable[[Movers], None], interval_s: float = 2.0) -> None:
    """Show again whenever there is a new snapshot or the shown one grew stale, until interrupted."""
    shown: object = object()
    try:
        while True:
            movers = latest(settings)
            state = movers.snapshot_at, movers.stale_since, movers.possible_from
            if state != shown:
                show(movers)
                shown = state
            time.sleep(interval_s)
    except KeyboardInterrupt:
        return
