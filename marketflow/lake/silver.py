"""Bronze to silver: typed, exact, deduplicated, and every message and item accounted for.

`advance` moves a source by its own watermark, which lies in the same commit as the rows it covers: a crash at any
point, and a batch that is run again, give the table that an undisturbed run gives. `close_hour` holds an hour of bronze
against silver and inserts what is missing. Why it is so: docs/architecture.md, docs/decisions/0005-silver-batches.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import SparkSession

from marketflow.lake import silver_snapshots, watermark
from marketflow.lake.accounting import Accounting
from marketflow.lake.session import table_name
from marketflow.lake.silver_batch import worked_out
from marketflow.lake.silver_close import ClosedHour, close_hour
from marketflow.lake.silver_commit import SilverCommit, append_accepted, copy_accounting, insert_rejected
from marketflow.lake.silver_read import Chunk, Plan, chunks, plan
from marketflow.lake.silver_sources import SOURCES, Source
from marketflow.lake.watermark import Watermark
from marketflow.settings import Settings
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

__all__ = [
    "SOURCES",
    "ClosedHour",
    "Outcome",
    "SilverCommit",
    "Source",
    "advance",
    "advance_all",
    "close_hour",
]

MOST_MESSAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one source in advance_all: its commits, and the error that ended it where there was one."""

    table: str
    commits: list[SilverCommit]
    error: Exception | None = None

    @property
    def accounting(self) -> Accounting:
        """All commits together."""
        return sum((commit.accounting for commit in self.commits), Accounting())


def hours_touched(commits: Iterable[SilverCommit]) -> list[str]:
    """Starts of the hours that got rows, ISO, ascending."""
    return sorted({hour.isoformat() for commit in commits for hours in commit.touched.values() for hour in hours})


def advance(
    spark: SparkSession,
    settings: Settings,
    source: Source,
    *,
    until: datetime | None = None,
    max_messages: int = MOST_MESSAGES,
) -> list[SilverCommit]:
    """Read what bronze has beyond the watermark (ingested before `until`, where given), in one commit per chunk.

    A table without watermark that is empty, or holds hours that close_hour put there, starts at bronze's first offset
    and finds those rows "already here". Returns the commits; none when there was nothing new.

    Raises:
        BusyError: another process writes the table.
        LakeStateError: rows without a watermark, a hole in bronze's offsets, or a balance that does not hold.
    """
    with table_lock(settings, source.table.qualified):
        copy_accounting(spark, settings, source)
        complete_through = _bronze_complete_through(settings, source)
        name = table_name(settings, source.table)
        mark = watermark.of_table(silver_snapshots.java_table(spark, name), name)
        found = plan(spark, settings, source, mark, until=until)
        pieces = list(chunks(found.runs, min(max_messages, source.most_messages)))
        commits = []
        for number, piece in enumerate(pieces, start=1):
            is_last = found.is_all and number == len(pieces)
            mark = _moved(mark, piece, found.covers if is_last else None)
            commits.append(_write(spark, settings, source, found, piece, mark))
            copy_accounting(spark, settings, source)
        if complete_through is not None and found.is_all:
            _mark_fresh(settings, source, complete_through, commits)
    return commits


def _write(
    spark: SparkSession, settings: Settings, source: Source, found: Plan, piece: Chunk, mark: Watermark
) -> SilverCommit:
    with worked_out(spark, settings, source, found.frame, piece) as batch:
        if batch.accounting.rejected:
            insert_rejected(spark, settings, batch.rejected)
        return append_accepted(spark, settings, source, batch, mark)


def _moved(mark: Watermark | None, piece: Chunk, covers: int | None) -> Watermark:
    """The watermark after a chunk. A bronze snapshot is covered only once all of it was read."""
    before = mark or Watermark({})
    return Watermark(
        {**before.next_offsets, **piece.after},
        covers=covers if covers is not None else before.covers,
        ingested_at=max(piece.newest, before.ingested_at or piece.newest),
    )


def _bronze_complete_through(settings: Settings, source: Source) -> datetime | None:
    """Read before bronze is: what arrived until then is in the snapshot that is read after."""
    with connect(settings) as connection:
        return freshness.complete_through(connection, source.bronze.qualified)


def _mark_fresh(settings: Settings, source: Source, complete_through: datetime, commits: list[SilverCommit]) -> None:
    newest = max((commit.newest_event_at for commit in commits if commit.newest_event_at), default=None)
    with connect(settings) as connection:
        freshness.mark(
            connection,
            source.table.qualified,
            complete_through,
            newest_event_at=newest,
            snapshot_id=commits[-1].snapshot_id if commits else None,
        )


def advance_all(spark: SparkSession, settings: Settings, *, max_messages: int = MOST_MESSAGES) -> dict[str, Outcome]:
    """Advance every source, each independently: an error is kept for the caller and stops no other source."""
    outcomes = {}
    for name, source in SOURCES.items():
        try:
            outcomes[name] = Outcome(name, advance(spark, settings, source, max_messages=max_messages))
        except Exception as error:  # not silent: the caller fails on an outcome with an error, after the others ran
            outcomes[name] = Outcome(name, [], error)
    return outcomes
