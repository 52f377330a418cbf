"""What the writers of live.* share: a batch's number, and rows of a contract in one statement each way.

A batch is one transaction, which begins by taking its number; nothing is remembered but what the tables hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl
import psycopg

from marketflow.contracts.columns import Table
from marketflow.features import frames

Connection = psycopg.Connection[tuple[Any, ...]]
Row = tuple[Any, ...]


def begin(connection: Connection, query: str, batch_id: int) -> bool:
    """Take the batch's number; False where it, or a later one, was taken before.

    `query` names the query and its checkpoint: batches are numbered anew in a new checkpoint.
    """
    taken = connection.execute(
        "insert into live.batch as known (query, batch_id, written_at) values (%s, %s, now()) "
        "on conflict (query) do update set batch_id = excluded.batch_id, written_at = excluded.written_at "
        "where known.batch_id < excluded.batch_id",
        (query, batch_id),
    )
    return taken.rowcount == 1


def insert_new(connection: Connection, table: Table, rows: Sequence[Row], returning: Iterable[str]) -> pl.DataFrame:
    """Insert rows whose key is not there yet, the first of a key in their order; these columns of what was new."""
    wanted = tuple(returning)
    names, key = ", ".join(table.column_names), ", ".join(table.key)
    found = connection.execute(
        f"insert into {table.qualified} ({names}) "  # noqa: S608 - the contract's own names
        f"select distinct on ({key}) {names} "
        f"from {arrays(table)} with ordinality as given ({names}, place) "
        f"order by {key}, place on conflict do nothing returning {', '.join(wanted)}",
        columns(rows, table),
    ).fetchall()
    return pl.DataFrame(found, schema={name: frames.schema(table)[name] for name in wanted}, orient="row")


def upsert(connection: Connection, table: Table, rows: pl.DataFrame) -> None:
    """Write rows over those of the same key."""
    names, key = ", ".join(table.column_names), ", ".join(table.key)
    changes = ", ".join(f"{name} = excluded.{name}" for name in table.column_names if name not in table.key)
    connection.execute(
        f"insert into {table.qualified} ({names}) select {names} from {arrays(table)} as given ({names}) "  # noqa: S608
        f"on conflict ({key}) do update set {changes}",
        columns(rows.rows(), table),
    )


def arrays(table: Table) -> str:
    """`unnest(%s::text[], …)`: one array a column, so that any number of rows is one statement."""
    return f"unnest({', '.join(f'%s::{column.type.postgres}[]' for column in table.columns)})"


def columns(rows: Sequence[Row], table: Table) -> list[list[Any]]:
    """The rows as the arguments of `arrays`."""
    return [[row[index] for row in rows] for index in range(len(table.columns))]


def frame(rows: list[Row], table: Table) -> pl.DataFrame:
    """Rows of all the contract's columns."""
    return pl.DataFrame(rows, schema=frames.schema(table), orient="row")
