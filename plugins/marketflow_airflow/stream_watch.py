"""How the Spark stream is: when it last said anything, and how far it is behind Kafka. No Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from marketflow_airflow.service_round import Condition

if TYPE_CHECKING:
    import psycopg

STREAM = "market-stream"
# Every query says something at least once a minute, idle or not, where its trigger is no longer than this; a longer one
# is waited for.
ORDINARY_TRIGGER_S = 30
SILENT_AFTER = timedelta(minutes=2)
SILENT_AFTER_IN_BATCH = timedelta(minutes=5)
RESTART_AFTER = timedelta(minutes=3)
# a batch under way says nothing until it ends, and after a long outage the first ones are the largest
RESTART_AFTER_IN_BATCH = timedelta(minutes=10)
# lag is normal up to a trigger's worth of messages and a batch's
BEHIND_AFTER_S = 120.0
BEHIND_MESSAGES = 10_000

Offsets = Mapping[str, Mapping[int, int]]

_QUERIES = """
select distinct on (query) query, event, at, error
from ops.stream_progress where at > now() - interval '1 day' order by query, at desc
"""
_READ = """
select distinct on (query) query, end_offsets
from ops.stream_progress where query like 'bronze%%' and end_offsets is not null order by query, at desc
"""
_RATES = """
select coalesce(sum(input_rows), 0) / 300.0,
    coalesce(sum(input_rows) * 1000.0 / nullif(sum(duration_ms), 0), 0)
from ops.stream_progress
where query like 'bronze%%' and event = 'progress' and at > now() - interval '5 minutes'
"""


@dataclass(frozen=True)
class Silence:
    """One query that says nothing: its last word, None where it has said none, and how long ago that was."""

    query: str
    since: datetime | None
    event: str | None
    lasts: timedelta

    def exceeds(self, idle: timedelta, in_batch: timedelta) -> bool:
        """Whether it lasts longer than a query may be silent: one with a batch under way for longer."""
        return self.lasts > (in_batch if self.event == "started" else idle)


@dataclass(frozen=True)
class Progress:
    """What the stream has said. Rates are of bronze over the last five minutes.

    `newest` has of each query that said anything in the last day when it last did, and what. `terminated` has for
    each whose newest word is that it ended, when, and why. `slack` is by how much the longest trigger exceeds the
    ordinary one.
    """

    newest: dict[str, tuple[datetime, str]]
    lag_messages: int
    input_rows_per_s: float
    processed_rows_per_s: float
    terminated: dict[str, tuple[datetime, str]]
    slack: timedelta = timedelta(0)

    def silences(self, now: datetime, uptime_s: float) -> list[Silence]:
        """Of each query that is at work how long it has said nothing, the longest first.

        What was said before the start counts for nothing. Where no query is at work, as before the first has begun,
        the one silence is that of all together.
        """
        uptime, words = timedelta(seconds=uptime_s), self.newest.values()
        at_work = [
            Silence(query, at, event, now - at)
            for query, (at, event) in self.newest.items()
            if event != "terminated" and now - at <= uptime
        ]
        at, event = max(words, default=(None, None))
        of_all = Silence("any query", at, event, min(uptime, now - at) if at else uptime)
        return sorted(at_work, key=lambda one: (one.lasts, one.query), reverse=True) or [of_all]

    def nothing_since_start(self, now: datetime, uptime_s: float) -> bool:
        """Whether it has not said a word yet since it was started."""
        return all(now - at > timedelta(seconds=uptime_s) for at, _ in self.newest.values())

    def __str__(self) -> str:
        """One line for the log."""
        said = [f"{query} {event} at {at:%H:%M:%S}" for query, (at, event) in sorted(self.newest.items())]
        return (
            f"last said: {', '.join(said) or 'nothing'}; {self.lag_messages} messages behind Kafka, "
            f"{self.input_rows_per_s:.0f} rows/s arrive, {self.processed_rows_per_s:.0f} rows/s can be processed"
        )


def read(connection: psycopg.Connection[Any], end_offsets: Offsets, trigger_s: float = ORDINARY_TRIGGER_S) -> Progress:
    """Progress as ops.stream_progress and Kafka's own ends tell it; `trigger_s` is the longest of its queries."""
    queries = connection.execute(_QUERIES).fetchall()
    rates = connection.execute(_RATES).fetchone() or (0, 0)
    terminated = {
        query: (at, error or "it was stopped") for query, event, at, error in queries if event == "terminated"
    }
    return Progress(
        newest={query: (at, event) for query, event, at, _ in queries},
        lag_messages=_lag(connection, end_offsets),
        input_rows_per_s=float(rates[0]),
        processed_rows_per_s=float(rates[1]),
        terminated=terminated,
        slack=timedelta(seconds=max(0.0, trigger_s - ORDINARY_TRIGGER_S)),
    )


def read_up_to(connection: psycopg.Connection[Any]) -> dict[str, dict[int, int]]:
    """Topic → partition → the offset that bronze reads next."""
    found: dict[str, dict[int, int]] = {}
    for _, text in connection.execute(_READ).fetchall():
        for topic, partitions in json.loads(text).items():
            found.setdefault(topic, {}).update(
                {int(partition): int(offset) for partition, offset in partitions.items()}
            )
    return found


def _lag(connection: psycopg.Connection[Any], end_offsets: Offsets) -> int:
    offsets = read_up_to(connection)
    return sum(
        max(0, end - offsets.get(topic, {}).get(partition, 0))
        for topic, partitions in end_offsets.items()
        for partition, end in partitions.items()
    )


def unread(names: Iterable[str], offsets: Offsets, end_offsets: Offsets) -> list[str]:
    """Topics that are not in Kafka and of which bronze has read nothing, so that they may be made."""
    return [name for name in names if name not in end_offsets and not any(offsets.get(name, {}).values())]


def vanished(names: Iterable[str], offsets: Offsets, end_offsets: Offsets) -> list[Condition]:
    """Topics that hold less than bronze has read of them: they were deleted, or made anew with offsets from 0.

    What is published to them is not read: a record's place in Kafka is how bronze knows it.
    """
    found = []
    for name in names:
        lost = [
            f"partition {partition} ends at {end_offsets.get(name, {}).get(partition, 'nothing')}, read up to {offset}"
            for partition, offset in sorted(offsets.get(name, {}).items())
            if end_offsets.get(name, {}).get(partition, 0) < offset
        ]
        if lost:
            detail = (
                f"Kafka holds less of {name} than bronze has read ({'; '.join(lost)}): it was deleted or made anew."
            )
            found.append(Condition(STREAM, "behind", detail))
    return found


def conditions(progress: Progress, now: datetime, uptime_s: float) -> list[Condition]:
    """What is wrong with a stream that runs."""
    found = []
    idle, in_batch = SILENT_AFTER + progress.slack, SILENT_AFTER_IN_BATCH + progress.slack
    long = [one for one in progress.silences(now, uptime_s) if one.exceeds(idle, in_batch)]
    if long:
        words = [
            f"No batch of {one.query} started, ended or idled for {one.lasts.total_seconds():.0f} s." for one in long
        ]
        detail = " ".join(words)
        found.append(Condition(STREAM, "silent", detail))
    # what ended with the process before this one is to be expected
    began = now - timedelta(seconds=uptime_s)
    ended = [f"{query} ended: {why[:200]}" for query, (at, why) in sorted(progress.terminated.items()) if at > began]
    if ended:
        found.append(Condition(STREAM, "behind", f"{'; '.join(ended)}."))
    limit = max(float(BEHIND_MESSAGES), BEHIND_AFTER_S * progress.input_rows_per_s)
    if progress.lag_messages > limit:
        detail = (
            f"{progress.lag_messages} messages are not in bronze yet; {progress.input_rows_per_s:.0f} rows/s arrive "
            f"and {progress.processed_rows_per_s:.0f} rows/s can be processed."
        )
        found.append(Condition(STREAM, "behind", detail))
    return found


def hanging(progress: Progress, now: datetime, uptime_s: float) -> Silence | None:
    """A query that has been silent for so long that a restart may help; a batch under way may say nothing."""
    idle, in_batch = RESTART_AFTER + progress.slack, RESTART_AFTER_IN_BATCH + progress.slack
    return next((one for one in progress.silences(now, uptime_s) if one.exceeds(idle, in_batch)), None)
