"""What history was asked for and how far it came: ops.backfill. A row is the memory of a backfill across its deaths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from marketflow.warehouse.locks import lock_key

Connection = psycopg.Connection[tuple[Any, ...]]
Status = Literal["running", "done", "failed"]

_KEYS = "source = %s and product_id = %s and what = %s and start_ts = %s and end_ts = %s"
_READ = f"select cursor, reached_ts, pages, items, status, detail, notes, updated_at from ops.backfill where {_KEYS}"  # noqa: S608 - above
_BEGIN = """
insert into ops.backfill (source, product_id, what, start_ts, end_ts, pages, items, status, updated_at)
values (%s, %s, %s, %s, %s, 0, 0, 'running', now())
on conflict (source, product_id, what, start_ts, end_ts)
do update set status = 'running', detail = null, updated_at = now()
"""
_FORGET = f"delete from ops.backfill where {_KEYS}"  # noqa: S608 - above
_MOVE = f"""
update ops.backfill set cursor = %s, reached_ts = %s, pages = %s, items = %s, notes = %s, updated_at = now()
where {_KEYS}
"""  # noqa: S608 - above
_END = f"update ops.backfill set status = %s, detail = %s, updated_at = now() where {_KEYS}"  # noqa: S608 - above
_HELD = """
select (classid::bigint << 32 | objid::bigint) from pg_locks
where locktype = 'advisory' and granted and objsubid = 1
  and database = (select oid from pg_database where datname = current_database())
"""


@dataclass(frozen=True, slots=True)
class Key:
    """One interval of one product's trades or candles; `source` is a venue, `what` is trades or candles:<interval>."""

    source: str
    product_id: str
    what: str
    start: datetime
    end: datetime

    @property
    def lock_name(self) -> str:
        """What locks.table_lock takes, so that one process at a time works on it."""
        start, end = (moment.astimezone(UTC).isoformat() for moment in (self.start, self.end))
        return f"ops.backfill ({self.source} {self.product_id} {self.what} {start} to {end})"

    @property
    def values(self) -> tuple[str, str, str, datetime, datetime]:
        """In the order of the table's key."""
        return self.source, self.product_id, self.what, self.start, self.end


@dataclass(frozen=True, slots=True)
class State:
    """How far it is."""

    cursor: str | None = None
    reached: datetime | None = None
    pages: int = 0
    items: int = 0
    status: Status | None = None
    detail: str | None = None
    notes: tuple[str, ...] = ()
    moved_at: datetime | None = None


def read(connection: Connection, key: Key) -> State:
    """The row; an empty state where there is none."""
    row = connection.execute(_READ, key.values).fetchone()
    if row is None:
        return State()
    cursor, reached, pages, items, status, detail, notes, moved_at = row
    return State(cursor, reached, pages, items, status, detail, tuple(json.loads(notes or "[]")), moved_at)


def begin(connection: Connection, key: Key, *, again: bool) -> None:
    """Say that it runs; `again` forgets how far it was."""
    with connection.transaction():
        if again:
            connection.execute(_FORGET, key.values)
        connection.execute(_BEGIN, key.values)


def move(
    connection: Connection,
    key: Key,
    *,
    cursor: str | None,
    reached: datetime | None,
    pages: int,
    items: int,
    notes: Sequence[str] = (),
) -> None:
    """Everything before the cursor is in Kafka; `notes` say what of the history was not to be had."""
    connection.execute(_MOVE, (cursor, reached, pages, items, json.dumps(list(notes)), *key.values))


def end(connection: Connection, key: Key, status: Status, detail: str | None) -> None:
    """It is done, or failed and why."""
    connection.execute(_END, (status, detail, *key.values))


def listed(connection: Connection, dataset: str, limit: int = 50) -> list[dict[str, Any]]:
    """Rows as people read them, the last moved first; one that says `running` and has no process is `interrupted`."""
    cursor = connection.execute(
        "select source, product_id, what, start_ts, end_ts, status, reached_ts, pages, items, detail, updated_at "
        "from ops.backfill order by updated_at desc, source, product_id, what, start_ts limit %s",
        (limit,),
    )
    names = [column.name for column in cursor.description or ()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    held = {key for (key,) in connection.execute(_HELD)}
    for row in rows:
        key = Key(row["source"], row["product_id"], row["what"], row["start_ts"], row["end_ts"])
        if row["status"] == "running" and lock_key(dataset, key.lock_name) not in held:
            row["status"] = "interrupted"
    return rows
