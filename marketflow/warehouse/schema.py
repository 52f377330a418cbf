"""Bring a Postgres database to its contracts: schemas, tables, grants, then the views of include/sql/postgres/schema/.

Compares each contract with information_schema; creates what is missing, adds nullable columns, widens integers,
and refuses anything else by name. What was done is recorded in ops.contract_version.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from marketflow.contracts.columns import Column, Table, Type
from marketflow.contracts.tables import POSTGRES_TABLES
from marketflow.errors import ContractError
from marketflow.paths import SQL_FOLDER
from marketflow.settings import Settings
from marketflow.warehouse import day_partitions, feature_catalogue, retention
from marketflow.warehouse.connection import connect

SCHEMAS = ("live", "gold", "ops", "mart")
# one session applies contracts at a time; any fixed number serves, this one is "contract" in ASCII
_LOCK = 0x636F6E7472616374

_STORED_NAMES = {
    "text": Type.STRING,
    "bytea": Type.BINARY,
    "boolean": Type.BOOLEAN,
    "integer": Type.INTEGER,
    "bigint": Type.LONG,
    "double precision": Type.DOUBLE,
    "numeric": Type.MONEY,
    "timestamp with time zone": Type.TIMESTAMP,
    "date": Type.DATE,
}
_WIDENINGS = {(Type.INTEGER, Type.LONG)}

Connection = psycopg.Connection[tuple[Any, ...]]


def contract_hash(table: Table) -> str:
    """SHA-256 of names, types and nullability: changes when the stored shape must."""
    text = ";".join(f"{column.name}:{column.type.name}:{column.nullable}" for column in table.columns)
    return hashlib.sha256(text.encode()).hexdigest()


def _body(table: Table) -> str:
    """Columns and key. Key columns may be null where the contract says so (a unique index then)."""
    keys_nullable = any(table.column(name).nullable for name in table.key)
    lines = [_column_definition(column) for column in table.columns]
    key = ", ".join(f'"{name}"' for name in table.key)
    lines.append(f"unique nulls not distinct ({key})" if keys_nullable else f"primary key ({key})")
    return ",\n  ".join(lines)


def _create(connection: Connection, table: Table) -> None:
    if table.day_column:
        day_partitions.create(connection, table, _body(table))
    else:
        connection.execute(f"create table {table.qualified} (\n  {_body(table)}\n)")


def _column_definition(column: Column) -> str:
    return f'"{column.name}" {column.type.postgres}{"" if column.nullable else " not null"}'


def _stored_columns(connection: Connection, table: Table) -> dict[str, Type]:
    rows = connection.execute(
        "select column_name, data_type from information_schema.columns where table_schema = %s and table_name = %s",
        (table.layer, table.name),
    ).fetchall()
    return {name: _STORED_NAMES[kind] for name, kind in rows}


def _evolve(connection: Connection, table: Table) -> list[str]:
    """Make or change one table; returns what was done, in words."""
    stored = _stored_columns(connection, table)
    if not stored:
        _create(connection, table)
        return ["created"]
    changes: list[str] = []
    name = f"{table.layer}.{table.name}"
    for extra in stored.keys() - set(table.column_names):
        raise ContractError(f"{name} has column {extra} that its contract does not: rename or drop it by hand")
    for column in table.columns:
        kind = stored.get(column.name)
        if kind is column.type:
            continue
        if kind is None and column.nullable:
            connection.execute(f"alter table {name} add column {_column_definition(column)}")
            changes.append(f"added {column.name}")
        elif kind is not None and (kind, column.type) in _WIDENINGS:
            connection.execute(f'alter table {name} alter column "{column.name}" type {column.type.postgres}')
            changes.append(f"widened {column.name}")
        else:
            raise ContractError(
                f"{name}.{column.name} is {kind.name if kind else 'missing and not nullable'}, its contract says "
                f"{column.type.name}: only new nullable columns and wider integers are applied by themselves"
            )
    return changes


def _partition(connection: Connection, settings: Settings, table: Table, now: datetime) -> list[str]:
    """Days ahead for a table that is partitioned; one of an earlier version is made so, with its rows."""
    oldest = now - retention.window(settings, table)
    if day_partitions.is_partitioned(connection, table):
        day_partitions.ensure(connection, table, oldest, now)
        return []
    rows = day_partitions.convert(connection, table, _body(table), oldest, now)
    return [f"partitioned by day of {table.day_column}, {rows} rows"]


def _views(connection: Connection) -> None:
    for path in sorted((SQL_FOLDER / "postgres" / "schema").glob("*.sql")):
        connection.execute(path.read_text())


def _grants(connection: Connection) -> None:
    for schema in SCHEMAS:
        name = sql.Identifier(schema)
        connection.execute(sql.SQL("grant usage on schema {} to marketflow_reader").format(name))
        connection.execute(sql.SQL("grant select on all tables in schema {} to marketflow_reader").format(name))


def apply(settings: Settings) -> dict[str, list[str]]:
    """Bring the dataset's database to its contracts. Returns table → changes for those that changed.

    Raises:
        ContractError: a stored table differs in a way that is not an allowed evolution.
    """
    now = datetime.now(UTC)
    with connect(settings) as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
        for schema in SCHEMAS:
            connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
        done = {table.qualified: _evolve(connection, table) for table in POSTGRES_TABLES}
        for table in POSTGRES_TABLES:
            if table.day_column:
                done[table.qualified] += _partition(connection, settings, table, now)
        for table in POSTGRES_TABLES:
            record_version(connection, f"postgres:{table.qualified}", contract_hash(table), done[table.qualified])
        feature_catalogue.write(connection)
        _views(connection)
        day_partitions.drop_converted(connection)
        _grants(connection)
    return {name: changes for name, changes in done.items() if changes}


def record_version(connection: Connection, table_name: str, digest: str, changes: list[str]) -> None:
    """Write to ops.contract_version that a store now has this version; the first time of a version wins."""
    connection.execute(
        "insert into ops.contract_version (table_name, contract_hash, applied_at, changes) "
        "values (%s, %s, now(), %s) on conflict do nothing",
        (table_name, digest, ", ".join(changes) or "as it was"),
    )
