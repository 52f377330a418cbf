"""Spark's reports about the stream's queries, turned into ops.stream_progress and bronze's complete_through."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pyspark.sql.streaming import StreamingQueryListener
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryProgress,
)

from marketflow.warehouse.progress import ProgressEvent, ProgressWriter

_IDLE_ROW_EVERY = timedelta(seconds=30)
BEFORE_FIRST_BATCH = -1


class ProgressListener(StreamingQueryListener):  # type: ignore[misc] # pyspark is not typed here
    """Records every start, batch, idle moment and end, and how far each bronze table is complete.

    A query stood at its topic's end when a trigger found nothing to read, or when its batch ended where the topic
    did. Spark asks for the topic's end after the trigger has started, so all that Kafka had before that start is in:
    the trigger's start is the bound. A batch that is replayed after a crash asks for no end and moves no mark.
    """

    def __init__(self, writer: ProgressWriter, table_of: Mapping[str, str], *, moves_marks: bool = True) -> None:
        """`table_of` is query name → bronze table; `moves_marks` is False where the topic's end was asked only once."""
        self._writer = writer
        self._table_of = table_of
        self._moves_marks = moves_marks
        self._names: dict[str, str] = {}
        self._batches: dict[str, int] = {}
        self._idle_told: dict[str, datetime] = {}

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802 - Spark's name
        """A query began."""
        run_id = str(event.runId)
        self._names[run_id] = event.name or str(event.id)
        self._put(run_id, BEFORE_FIRST_BATCH, "started", _time(event.timestamp))

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802 - Spark's name
        """A batch ended."""
        progress = event.progress
        run_id, at = str(progress.runId), _time(progress.timestamp)
        self._names[run_id] = progress.name or str(progress.id)
        self._batches[run_id] = progress.batchId
        end, latest = _offsets(progress, "endOffset"), _offsets(progress, "latestOffset")
        self._put(
            run_id,
            progress.batchId,
            "progress",
            at,
            input_rows=progress.numInputRows,
            input_rows_per_s=progress.inputRowsPerSecond,
            processed_rows_per_s=progress.processedRowsPerSecond,
            duration_ms=progress.durationMs.get("triggerExecution"),
            end_offsets=_text(end),
            latest_offsets=_text(latest),
        )
        if latest is not None and end == latest:
            self._mark(run_id, at)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802 - Spark's name
        """A trigger found nothing to read."""
        run_id, at = str(event.runId), _time(event.timestamp)
        if run_id not in self._idle_told or at - self._idle_told[run_id] >= _IDLE_ROW_EVERY:
            self._idle_told[run_id] = at
            self._put(run_id, self._batches.get(run_id, BEFORE_FIRST_BATCH), "idle", at)
        self._mark(run_id, at)

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802 - Spark's name
        """A query ended."""
        run_id = str(event.runId)
        batch = self._batches.get(run_id, BEFORE_FIRST_BATCH)
        self._put(run_id, batch, "terminated", datetime.now(UTC), error=event.exception)

    def batch_under_way(self, name: str, run_id: str, at: datetime) -> None:
        """The query was seen working on the batch after its last: told once, so that a long batch is no silence.

        Before the first report of a run its batch's number is not known; the time of its start is moved up instead.
        """
        self._names[run_id] = name
        known = self._batches.get(run_id)
        self._put(run_id, BEFORE_FIRST_BATCH if known is None else known + 1, "started", at)

    def _put(self, run_id: str, batch_id: int, event: str, at: datetime, **measures: Any) -> None:
        name = self._names.get(run_id, run_id)
        self._writer.put(ProgressEvent(name, run_id, batch_id, event, at, **measures))

    def _mark(self, run_id: str, complete_through: datetime) -> None:
        table = self._table_of.get(self._names.get(run_id, run_id))
        if table and self._moves_marks:
            self._writer.mark(table, complete_through)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _offsets(progress: StreamingQueryProgress, which: str) -> Any:
    """Topic → partition → offset; None where Spark has none."""
    value = getattr(progress.sources[0], which) if progress.sources else None
    return json.loads(value) if isinstance(value, str) else value


def _text(offsets: Any) -> str | None:
    return None if offsets is None else json.dumps(offsets, sort_keys=True)
