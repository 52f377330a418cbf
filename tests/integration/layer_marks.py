"""ops.layer_mark for one test: what other tests on the same servers marked is put aside, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from marketflow.settings import Settings
from marketflow.warehouse.connection import connect


@contextmanager
def marks_kept(settings: Settings, *, emptied: bool) -> Iterator[psycopg.Connection[Any]]:
    """A connection that commits each statement; the marks as they are, or none."""
    with connect(settings, autocommit=True) as connection:
        kept: Any = connection.execute("select * from ops.layer_mark").fetchall()
        if emptied:
            connection.execute("delete from ops.layer_mark")
        try:
            yield connection
        finally:
            connection.execute("delete from ops.layer_mark")
            for row in kept:
                connection.execute("insert into ops.layer_mark values (%s, %s, %s, %s, %s)", row)
