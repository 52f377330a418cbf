"""ops.silver_accounting: a copy of what silver's snapshots say about themselves, one row a commit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from psycopg.rows import dict_row

from marketflow.settings import Settings
from marketflow.warehouse.connection import connect

_COUNTS = (
    *("messages", "ignored", "parsed", "unparseable", "items"),
    *("accepted", "duplicate", "rejected", "already_here"),
)
_JSON = ("first_offsets", "next_offsets", "ignored_by_name")
_INSERT = f"""
insert into ops.silver_accounting
  (table_name, snapshot_id, committed_at, touched_hours, {", ".join((*_COUNTS, *_JSON))})
values
  (%(table_name)s, %(snapshot_id)s, %(committed_at)s, %(touched_hours)s,
   {", ".join(f"%({name})s" for name in (*_COUNTS, *_JSON))})
on conflict do nothing
"""  # noqa: S608 - our own column names


_COVERING = f"""
select snapshot_id, {", ".join((*_COUNTS, *_JSON))}
from ops.silver_accounting
where
  table_name = %(table_name)s
  and (first_offsets::jsonb -> %(topic)s ->> %(partition)s)::bigint < %(after)s
  and (next_offsets::jsonb -> %(topic)s ->> %(partition)s)::bigint > %(first)s
"""  # noqa: S608 - our own column names


class Summary(Protocol):
    """What is needed of a snapshot."""

    @property
    def snapshot_id(self) -> int:
        """Iceberg's id."""

    @property
    def committed_at(self) -> datetime:
        """The snapshot's own time."""

    @property
    def properties(self) -> dict[str, str]:
        """Its `marketflow.` properties without the prefix."""


def copy_summaries(settings: Settings, table_name: str, summaries: Iterable[Summary]) -> int:
    """Copy the summaries (newest first) that ops.silver_accounting lacks; returns how many.

    Stops at the first that is there: every writer copies all before it that are missing, so a crash between a commit
    and its copy is made good by the next writer.
    """
    copied = 0
    with connect(settings) as connection:
        for summary in summaries:
            if "accounting" not in summary.properties:
                continue
            added = connection.execute(_INSERT, _row(table_name, summary)).rowcount
            if not added:
                break
            copied += added
    return copied


def covering(
    settings: Settings,
    table_name: str,
    first_offsets: Mapping[tuple[str, int], int],
    next_offsets: Mapping[tuple[str, int], int],
) -> list[dict[str, Any]]:
    """The commits that read any of these offsets: their counts, first_offsets and next_offsets."""
    found: dict[int, dict[str, Any]] = {}
    with connect(settings) as connection, connection.cursor(row_factory=dict_row) as cursor:
        for (topic, partition), first in first_offsets.items():
            cursor.execute(
                _COVERING,
                {
                    "table_name": table_name,
                    "topic": topic,
                    "partition": str(partition),
                    "first": first,
                    "after": next_offsets[topic, partition],
                },
            )
            for row in cursor.fetchall():
                found[row["snapshot_id"]] = row | {name: json.loads(row[name]) for name in _JSON}
    return list(found.values())


def _row(table_name: str, summary: Summary) -> dict[str, Any]:
    account = json.loads(summary.properties["accounting"])
    return {
        "table_name": table_name,
        "snapshot_id": summary.snapshot_id,
        "committed_at": summary.committed_at,
        "touched_hours": summary.properties.get("touched", "{}"),
        **{name: account[name] for name in _COUNTS},
        **{name: json.dumps(account[name]) for name in _JSON},
    }
