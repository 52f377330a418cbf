"""Gold to PostgreSQL: every hour that gold replaced since the last publication, in one transaction with the audit row.

Rows wait in a table of that transaction until the hard checks of quality have let them through (`warehouse.gate`);
where one fails nothing is published, and PostgreSQL keeps what it had.

What to publish is read from gold's own snapshot summaries, so a run that was missed, or killed before its commit, is
made up for by the next one. No Spark.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import psycopg
from psycopg import sql

from marketflow.contracts.columns import Table, Type
from marketflow.contracts.gold import GOLD_TABLES
from marketflow.errors import ConfigurationError
from marketflow.lake import readers
from marketflow.lake.snapshots import SnapshotSummary
from marketflow.paths import SQL_FOLDER
from marketflow.settings import Settings
from marketflow.warehouse import day_partitions, gate, retention
from marketflow.warehouse.connection import connect
from marketflow.warehouse.locks import table_lock

HOUR = timedelta(hours=1)
_PARAMETER = re.compile(r"\$(\w+)")
_IDENTIFIERS = {"table": "{table}", "hour_column": "{hour_column}"}
Connection = psycopg.Connection[tuple[Any, ...]]
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What one call did. `whole` says that all hours were published anew; the interval is what the hours span."""

    table: str
    snapshot_id: int | None
    hours: int
    rows: int
    trimmed: int
    published_through: datetime | None
    whole: bool
    interval_start: datetime | None
    interval_end: datetime | None

    def as_dict(self) -> dict[str, Any]:
        """For a task's result and an asset event."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class _Work:
    """Hours to publish from one gold snapshot; None means all of them."""

    snapshot_id: int
    hours: frozenset[datetime] | None
    complete_through: datetime | None


def publish(settings: Settings, qualified: str, *, now: datetime | None = None) -> PublishReport:
    """Bring a gold table's copy in PostgreSQL up to the lake's newest snapshot; safe to run again at any time.

    `now` is what the published window is counted back from.

    Raises:
        BusyError: the same table is being published by another process.
        QualityError: a hard check failed; nothing was changed but ops.quality_result.
    """
    table = _gold(qualified)
    assert table.hour_column
    oldest = _floor((now or datetime.now(UTC)) - retention.window(settings, table))
    with table_lock(settings, f"published {qualified}"):
        with connect(settings) as connection:
            last, through = _audited(connection, qualified)
        looked_at, history = datetime.now(UTC), readers.snapshots(settings, table)
        work = _work(history, last)
        with connect(settings) as connection:
            spans, hours, rows = list[Span](), 0, 0
            if work:
                spans, rows = _replace(connection, settings, table, work, oldest)
                hours = sum((end - start) // HOUR for start, end in spans)
                through = _floor(work.complete_through) if work.complete_through else None
                values = {"table_name": qualified, "last_snapshot_id": work.snapshot_id, "published_through": through}
                connection.execute(_statement("record"), values | {"hours": hours, "row_count": rows})
        with connect(settings) as connection:
            # by itself: nobody who reads has to wait for it and for the rows too
            trimmed = _trim(connection, table, oldest)
            connection.execute(_statement("look"), {"table_name": qualified, "looked_at": looked_at})
        with connect(settings) as connection:
            last, through = _audited(connection, qualified)
    whole = work is not None and work.hours is None
    # rows of whole days lie in the hour of midnight
    longest = timedelta(days=1) if table.hour_column == "day" else HOUR
    start, end = (spans[0][0], spans[-1][1] - HOUR + longest) if spans else (None, None)
    return PublishReport(qualified, last, hours, rows, trimmed, through, whole, start, end)


def _gold(qualified: str) -> Table:
    for table in GOLD_TABLES:
        if table.qualified == qualified:
            return table
    raise ConfigurationError(f"{qualified} is not published; known: {', '.join(t.qualified for t in GOLD_TABLES)}")


def _trim(connection: Connection, table: Table, oldest: datetime) -> int:
    """What has left the window: whole days where the table is partitioned, else row by row."""
    if table.day_column:
        return day_partitions.drop_before(connection, table, oldest)
    return _execute(connection, "trim", table, oldest=oldest)


def _audited(connection: Connection, qualified: str) -> tuple[int | None, datetime | None]:
    row = connection.execute(
        "select last_snapshot_id, published_through from ops.publish_audit where table_name = %s", (qualified,)
    ).fetchone()
    return (row[0], row[1]) if row else (None, None)


def _work(history: Sequence[SnapshotSummary], last: int | None) -> _Work | None:
    """Hours replaced by the snapshots after `last`; all where that one has expired or one does not name its hours."""
    if not history or history[0].snapshot_id == last:
        return None
    newest = history[0].snapshot_id
    marks = (snapshot.properties.get("complete_through") for snapshot in history if "hours" in snapshot.properties)
    mark = next(marks, None)
    through = datetime.fromisoformat(mark) if mark else None
    hours: set[datetime] = set()
    for snapshot in history:
        if snapshot.snapshot_id == last:
            return _Work(newest, frozenset(hours), through)
        if snapshot.operation == "replace":  # compaction moves rows between files
            continue
        if "hours" not in snapshot.properties:
            break
        # rows of whole days lie in the hour of midnight
        for name in ("hours", "days"):
            hours.update(datetime.fromisoformat(hour) for hour in json.loads(snapshot.properties.get(name, "[]")))
    return _Work(newest, None, through)


def _replace(
    connection: Connection, settings: Settings, table: Table, work: _Work, oldest: datetime
) -> tuple[list[Span], int]:
    """Copy whole hours to the gate, where they pass into the place of the old; returns which, and how many rows."""
    hours: list[datetime] = []
    if work.hours is None:
        spans = _days_held(settings, table, work.snapshot_id, oldest)
    else:
        hours = sorted(hour for hour in work.hours if hour >= oldest)
        spans = list(_spans(hours))
    gate.open_stage(connection, table)
    rows = sum(_copy(connection, settings, table, work.snapshot_id, start, end) for start, end in spans)
    if work.hours is None:
        _execute(connection, "delete_all", table)
    else:
        _execute(connection, "delete_hours", table, hours=hours)
    gate.let_through(settings, connection, table)
    return spans, rows


def _spans(hours: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Neighbouring hours as [start, end), none longer than a day, so that memory stays small."""
    start = end = None
    for hour in hours:
        if start and end == hour and hour - start < timedelta(days=1):
            end = hour + HOUR
            continue
        if start and end:
            yield start, end
        start, end = hour, hour + HOUR
    if start and end:
        yield start, end


def _days_held(settings: Settings, table: Table, snapshot_id: int, oldest: datetime) -> list[tuple[datetime, datetime]]:
    """Spans of the hours that the lake holds since `oldest`."""
    assert table.hour_column
    from pyiceberg.expressions import GreaterThanOrEqual

    since = GreaterThanOrEqual(table.hour_column, oldest.isoformat())
    held = readers.load(settings, table, row_filter=since, columns=(table.hour_column,), snapshot_id=snapshot_id)
    hours = pl.Series(held[table.hour_column]).dt.truncate("1h").unique().sort()
    return list(_spans([hour.astimezone(UTC) for hour in hours]))


def _copy(
    connection: Connection, settings: Settings, table: Table, snapshot_id: int, start: datetime, end: datetime
) -> int:
    """Copy the rows of [start, end) of one snapshot to the gate."""
    assert table.hour_column
    from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan

    inside = And(GreaterThanOrEqual(table.hour_column, start.isoformat()), LessThan(table.hour_column, end.isoformat()))
    frame = pl.DataFrame(pl.from_arrow(readers.load(settings, table, row_filter=inside, snapshot_id=snapshot_id)))
    # full microseconds and the zone in words: what a default format drops, a key would lose
    times = [column.name for column in table.columns if column.type is Type.TIMESTAMP]
    text = io.BytesIO()
    frame.with_columns(pl.col(times).dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")).write_csv(text, include_header=False)
    # a snapshot of an older version may lack columns, which are null then
    columns = sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(gate.staged(table), columns)
    with connection.cursor().copy(statement) as copy:
        copy.write(text.getvalue())
    return frame.height


def _execute(connection: Connection, statement: str, table: Table, **values: Any) -> int:
    """Run a statement of include/sql/postgres/publish on this table; returns the rows it touched."""
    names = {"table": _identifier(table), "hour_column": sql.Identifier(str(table.hour_column))}
    return connection.execute(sql.SQL(_statement(statement)).format(**names), values or None).rowcount


def _statement(name: str) -> Any:
    """A statement's text: $table and $hour_column become identifiers to fill in, other $names psycopg's parameters."""
    text = (SQL_FOLDER / "postgres" / "publish" / f"{name}.sql").read_text()
    return _PARAMETER.sub(lambda found: _IDENTIFIERS.get(found[1], f"%({found[1]})s"), text)


def _identifier(table: Table) -> sql.Identifier:
    return sql.Identifier(table.layer, table.name)


def _floor(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
