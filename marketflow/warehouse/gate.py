"""The gate of publication: rows wait in a table that nobody else sees until the hard checks have let them through."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

from psycopg import sql

from marketflow.contracts.columns import Table
from marketflow.errors import QualityError
from marketflow.settings import Settings
from marketflow.warehouse import checks, quality_results
from marketflow.warehouse.checks import Connection, Result
from marketflow.warehouse.connection import connect

_BY_DAY = "gold.product_day"


def staged(table: Table) -> sql.Identifier:
    """The table in which this table's new rows wait."""
    return sql.Identifier("pg_temp", f"staged_{table.name}")


def open_stage(connection: Connection, table: Table) -> None:
    """Make it, for the transaction. It has no constraint, so that a bad row is a finding and not an error of COPY."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(one.name), sql.SQL(one.type.postgres)) for one in table.columns
    )
    connection.execute(sql.SQL("create temporary table {} ({}) on commit drop").format(_local(table), columns))


def let_through(settings: Settings, connection: Connection, table: Table) -> None:
    """Judge the waiting rows, and move them into the published table.

    Results are recorded with the rows; where a hard check fails they are recorded by themselves, since what this
    transaction did is undone by the error.

    Raises:
        QualityError: a hard check failed; names it, its first row and the command that mends it.
    """
    connection.execute(sql.SQL("analyze {}").format(staged(table)))
    results = [checks.run(connection, check, None, staged(table)) for check in checks.gates_of(table)]
    run_id = f"publish {table.qualified} {uuid4()}"
    refused = [result for result in results if result.keeps_rows_out]
    if refused:
        with connect(settings) as another:
            quality_results.record(another, results, run_id, "publish")
        raise _error(table, refused)
    quality_results.record(connection, results, run_id, "publish")
    columns = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    connection.execute(
        sql.SQL("insert into {} ({}) select {} from {}").format(
            sql.Identifier(table.layer, table.name), columns, columns, staged(table)
        )
    )


def _local(table: Table) -> sql.Identifier:
    return sql.Identifier(f"staged_{table.name}")


def _error(table: Table, refused: Sequence[Result]) -> QualityError:
    found = "; ".join(f"{result.name} has {result.detail}" for result in refused)
    hours = sorted({hour for result in refused for hour in _hours(table, result)})
    grain = "day" if table.qualified == _BY_DAY else "hour"
    command = f'scripts/airflow dags trigger {table.owner} --conf \'{{"partition": "{(hours or ["…"])[0]}"}}\''
    if len(hours) > 1:
        command += f" (and of {', '.join(hours[1:])})"
    cause = f"{found}. {refused[0].check.name} means: a failing row {refused[0].check.meaning}"
    return QualityError(
        f"{table.qualified} was not published, and PostgreSQL keeps the rows it had: {cause} "
        f"Write the {grain} again: {command}; the next publication follows by itself. Where it comes again: "
        f"{refused[0].check.remedy}",
        checks=tuple(result.name for result in refused),
        cause=cause,
        command=command,
    )


def _hours(table: Table, result: Result) -> list[str]:
    """Starts of the hours (days) of the sample's rows."""
    found = []
    for row in result.sample:
        text = row.get(str(table.hour_column), row.get("of"))
        if isinstance(text, str):
            moment = datetime.fromisoformat(text).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            found.append(moment.isoformat())
    return found
