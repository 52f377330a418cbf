"""PostgreSQL's tables that grow with time: one partition a UTC day, and one for whatever has no day of its own yet.

What has had its time goes as a whole partition: dropping one costs a moment whatever it holds, where deleting a day of
rows would write each of them once more and leave its room to be cleaned up. A day is therefore kept until all of it is
old. Partitions are made a week ahead; a row of a day without one lands in the default partition and moves to its day
when that is made. The partitions are in a schema of their own, so that `gold`, `live` and `ops` hold their contracts'
tables and nothing else. docs/decisions/0015-day-partitions.md says which tables are kept so, and why others are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Any

import psycopg
from psycopg import errors, sql

from marketflow.contracts.columns import Table
from marketflow.errors import ContractError, LakeStateError

SCHEMA = "parts"
DAY = timedelta(days=1)
AHEAD = 7
# a window longer than this is for ever (a replay's): nothing is dropped, so partitions would serve nobody
LONGEST = timedelta(days=400)
# whoever reads meanwhile is waited for no longer, and those who come after him wait no longer: the next run is near
_PATIENCE = "2s"

Connection = psycopg.Connection[tuple[Any, ...]]


def create(connection: Connection, table: Table, body: str) -> None:
    """The table and its default partition. `body` is the columns and the key, which holds the day's column."""
    connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(SCHEMA)))
    statement = f'create table {table.qualified} (\n  {body}\n) partition by range ("{table.day_column}")'
    connection.execute(statement)
    connection.execute(sql.SQL("create table {} partition of {} default").format(_default(table), _parent(table)))


def is_partitioned(connection: Connection, table: Table) -> bool:
    """Whether the stored table is; an earlier version's is not."""
    row = connection.execute(
        "select relkind = 'p' from pg_class where oid = %s::regclass", (table.qualified,)
    ).fetchone()
    return bool(row and row[0])


def convert(connection: Connection, table: Table, body: str, oldest: datetime, today: datetime) -> int:
    """Put a partitioned table in the place of one that is not, with its rows; how many they are.

    The old one waits under another name: views still read it until they are made anew, see `drop_converted`.

    Raises:
        LakeStateError: the new table does not hold as many rows. The transaction must not be committed.
    """
    old = sql.Identifier(SCHEMA, f"{table.layer}_{table.name}{_CONVERTED}")
    connection.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(SCHEMA)))
    connection.execute(sql.SQL("alter table {} set schema {}").format(_parent(table), sql.Identifier(SCHEMA)))
    connection.execute(
        sql.SQL("alter table {} rename to {}").format(
            sql.Identifier(SCHEMA, table.name), sql.Identifier(f"{table.layer}_{table.name}{_CONVERTED}")
        )
    )
    create(connection, table, body)
    held = _days_held(connection, table, old, oldest, today)
    for day in sorted({*held, *_ahead(today)}):
        _add(connection, table, day)
    columns = sql.SQL(", ").join(map(sql.Identifier, table.column_names))
    copied = connection.execute(
        sql.SQL("insert into {} ({}) select {} from {}").format(_parent(table), columns, columns, old)
    ).rowcount
    for name in (_parent(table), old):
        row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
        if row != (copied,):
            raise LakeStateError(f"{table.qualified}: {copied} rows were copied to its partitions and {row} are there")
    return copied


_CONVERTED = "_as_it_was"


def drop_converted(connection: Connection) -> None:
    """Drop what `convert` has replaced, once our own views read the new tables.

    Raises:
        ContractError: a view of somebody's own reads an old table; it would have been dropped with it.
    """
    rows = connection.execute(
        "select relname from pg_class where relnamespace = to_regnamespace(%s) and relname like %s and relkind = 'r'",
        (SCHEMA, f"%{_CONVERTED}"),
    ).fetchall()
    for (name,) in rows:
        try:
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier(SCHEMA, name)))
        except errors.DependentObjectsStillExist as error:
            raise ContractError(
                f"{name.removesuffix(_CONVERTED).replace('_', '.', 1)} is to be partitioned by day, and something of "
                f"your own reads it: {error.diag.message_detail}. Drop that, run `make up`, and make it again"
            ) from None


def ensure(connection: Connection, table: Table, oldest: datetime, today: datetime) -> int:
    """Make the partitions of a week ahead and of days that the default partition holds; how many were made.

    A transaction of its own within the caller's: where somebody reads the table for too long it is left for the next
    run, which costs nothing, since the default partition takes every row.
    """
    if today - oldest > LONGEST:
        return 0
    try:
        with connection.transaction():
            _be_patient(connection)
            there = set(days(connection, table))
            wanted = {*_days_held(connection, table, _default(table), oldest, today), *_ahead(today)} - there
            if wanted:
                # no row of such a day may come into the default partition between its move and the end
                connection.execute(sql.SQL("lock table {} in access exclusive mode").format(_default(table)))
            for day in sorted(wanted):
                _add(connection, table, day)
            return len(wanted)
    except errors.LockNotAvailable:
        return 0


def days(connection: Connection, table: Table) -> list[datetime]:
    """Days that have a partition."""
    rows = connection.execute(
        "select child.relname from pg_inherits join pg_class as child on child.oid = inhrelid "
        "where inhparent = %s::regclass",
        (table.qualified,),
    ).fetchall()
    found = (re.fullmatch(rf"{table.layer}_{table.name}_(\d{{8}})", name) for (name,) in rows)
    return sorted(datetime.strptime(each[1], "%Y%m%d").replace(tzinfo=UTC) for each in found if each)


def drop_before(connection: Connection, table: Table, oldest: datetime) -> int:
    """Drop the partitions of days that are over before `oldest`, and such rows of the default one; how many rows.

    Of the day that `oldest` lies in nothing goes yet. Where somebody reads the table for too long, partitions are left
    for the next run.
    """
    dropped = 0
    try:
        with connection.transaction():
            _be_patient(connection)
            for day in days(connection, table):
                if day + DAY <= oldest:
                    name = _partition(table, day)
                    row = connection.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
                    dropped += int(row[0]) if row else 0
                    connection.execute(sql.SQL("drop table {}").format(name))
    except errors.LockNotAvailable:
        dropped = 0
    column = sql.Identifier(str(table.day_column))
    deleted = connection.execute(
        sql.SQL("delete from {} where {} < %s").format(_default(table), column), (oldest,)
    ).rowcount
    return dropped + deleted


def _be_patient(connection: Connection) -> None:
    connection.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(_PATIENCE)))


def _add(connection: Connection, table: Table, day: datetime) -> None:
    """Make a day's partition, and move there what the default partition has of it."""
    name, default = _partition(table, day), _default(table)
    connection.execute(sql.SQL("create table {} (like {} including all)").format(name, _parent(table)))
    connection.execute(
        sql.SQL(
            "with moved as (delete from {default} where {column} >= {day} and {column} < {next} returning *) "
            "insert into {name} select * from moved"
        ).format(
            default=default,
            column=sql.Identifier(str(table.day_column)),
            day=sql.Literal(day),
            next=sql.Literal(day + DAY),
            name=name,
        )
    )
    connection.execute(
        sql.SQL("alter table {} attach partition {} for values from ({}) to ({})").format(
            _parent(table), name, sql.Literal(day), sql.Literal(day + DAY)
        )
    )


def _ahead(today: datetime) -> Iterable[datetime]:
    start = datetime.combine(today.astimezone(UTC).date(), time(), UTC)
    # yesterday too: its last rows come after midnight
    return [start + number * DAY for number in range(-1, AHEAD + 1)]


def _days_held(
    connection: Connection, table: Table, name: sql.Identifier, oldest: datetime, today: datetime
) -> list[datetime]:
    """Days of the rows of this table that are worth a partition: neither too old nor from beyond the days ahead."""
    if today - oldest > LONGEST:
        return []
    rows = connection.execute(
        sql.SQL(
            "select distinct date_trunc('day', {column}, 'UTC') from {name} where {column} >= %s and {column} < %s"
        ).format(column=sql.Identifier(str(table.day_column)), name=name),
        (oldest, max(_ahead(today)) + DAY),
    ).fetchall()
    return [day.astimezone(UTC) for (day,) in rows]


def _parent(table: Table) -> sql.Identifier:
    return sql.Identifier(table.layer, table.name)


def _default(table: Table) -> sql.Identifier:
    return sql.Identifier(SCHEMA, f"{table.layer}_{table.name}_default")


def _partition(table: Table, day: datetime) -> sql.Identifier:
    return sql.Identifier(SCHEMA, f"{table.layer}_{table.name}_{day:%Y%m%d}")
