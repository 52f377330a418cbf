"""ops.forecast_run: which models were trained, on what, and what their scores are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from marketflow.contracts.ops import FORECAST_RUN

Connection = psycopg.Connection[tuple[Any, ...]]


def insert(connection: Connection, row: Mapping[str, Any]) -> None:
    """Add a run; `row` has every column of the contract."""
    names = FORECAST_RUN.column_names
    statement = sql.SQL("insert into ops.forecast_run ({}) values ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join(map(sql.Placeholder, names))
    )
    connection.execute(statement, {name: row[name] for name in names})


def listed(connection: Connection, *, product_id: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
    """Runs, newest first."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from ops.forecast_run where %(product)s::text is null or product_id = %(product)s "
            "order by trained_at desc, run_id limit %(limit)s",
            {"product": product_id, "limit": limit},
        ).fetchall()


def one(connection: Connection, run_id: str) -> dict[str, Any] | None:
    """The run of that id."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from ops.forecast_run where run_id = %s", (run_id,)).fetchone()
