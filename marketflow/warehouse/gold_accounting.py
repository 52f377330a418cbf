"""ops.gold_accounting: what became of every trade of an hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Protocol

import psycopg

from marketflow.contracts.columns import Table

Connection = psycopg.Connection[tuple[Any, ...]]

_KNOWN = """
(
  select 1 from ops.gold_accounting
  where table_name = %(table_name)s and snapshot_id = %(snapshot_id)s
  limit 1
)
union all
(select 1 from ops.layer_mark where table_name = %(table_name)s and snapshot_id = %(snapshot_id)s)
"""


class HourWritten(Protocol):
    """One product's hour as its writer tells of it."""

    @property
    def venue(self) -> str: ...  # noqa: D102
    @property
    def product_id(self) -> str: ...  # noqa: D102
    @property
    def hour(self) -> datetime: ...  # noqa: D102
    @property
    def trades(self) -> int: ...  # noqa: D102
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def left_out(self) -> int: ...  # noqa: D102
    @property
    def later_quotes(self) -> int: ...  # noqa: D102


def knows(connection: Connection, table: Table, snapshot_id: int) -> bool:
    """Whether this snapshot of the table was accounted for.

    Its rows tell, or, where no hour of it had a trade, the table's mark, which is written after them.
    """
    asked = {"table_name": table.qualified, "snapshot_id": snapshot_id}
    return connection.execute(_KNOWN, asked).fetchone() is not None


def record(
    connection: Connection, table: Table, hours: Sequence[datetime], written: Iterable[HourWritten], snapshot_id: int
) -> None:
    """Replace the rows of these hours; repeating it changes nothing but written_at."""
    connection.execute(
        "delete from ops.gold_accounting where table_name = %s and hour = any(%s)", (table.qualified, list(hours))
    )
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into ops.gold_accounting (table_name, venue, product_id, hour, trades, row_count, left_out, "
            "later_quotes, snapshot_id, written_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())",
            [
                (
                    *(table.qualified, one.venue, one.product_id, one.hour, one.trades, one.rows, one.left_out),
                    *(one.later_quotes, snapshot_id),
                )
                for one in written
            ],
        )
