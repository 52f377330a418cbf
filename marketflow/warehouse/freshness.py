"""complete_through of each table: the processing time up to which everything that arrived is in. Never moves back."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg

_MARK = """
insert into ops.layer_mark as mark (table_name, complete_through, newest_event_at, snapshot_id, updated_at)
values (%(table_name)s, %(complete_through)s, %(newest_event_at)s, %(snapshot_id)s, now())
on conflict (table_name) do update set
  complete_through = greatest(mark.complete_through, excluded.complete_through),
  newest_event_at = greatest(mark.newest_event_at, excluded.newest_event_at),
  snapshot_id = coalesce(excluded.snapshot_id, mark.snapshot_id),
  updated_at = excluded.updated_at
"""


def mark(
    connection: psycopg.Connection[tuple[Any, ...]],
    table_name: str,
    complete_through: datetime,
    *,
    newest_event_at: datetime | None = None,
    snapshot_id: int | None = None,
) -> None:
    """Record that `table_name` (`silver.trades`) is complete through this processing time (aware, UTC)."""
    values = {"table_name": table_name, "complete_through": complete_through}
    connection.execute(_MARK, values | {"newest_event_at": newest_event_at, "snapshot_id": snapshot_id})


def complete_through(connection: psycopg.Connection[tuple[Any, ...]], table_name: str) -> datetime | None:
    """The recorded mark, or None where the table has none yet."""
    row = connection.execute(
        "select complete_through from ops.layer_freshness where table_name = %s", (table_name,)
    ).fetchone()
    return row[0] if row else None
