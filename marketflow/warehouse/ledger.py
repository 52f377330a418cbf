"""The gap ledger, ops.trade_gap: which trade ids are missing, why, and what became of them.

Every function here may be repeated with the same arguments and changes nothing the second time, and no two rows of a
product ever cover the same id. A row is one of: `open` (missing, may be healed), `healed`, `unrecoverable`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import psycopg

Connection = psycopg.Connection[tuple[Any, ...]]


class Hole(NamedTuple):
    """One row of the ledger: ids first to last, inclusive."""

    first_missing_id: int
    last_missing_id: int
    detected_at: datetime
    detected_by: str
    cause: str
    status: str
    attempts: int
    healed_at: datetime | None
    connection_id: str | None
    last_attempt_at: datetime | None = None
    detail: str | None = None


class Known(NamedTuple):
    """A row that is not healed, as one who heals needs it."""

    venue: str
    product_id: str
    first_missing_id: int
    last_missing_id: int
    detected_at: datetime
    status: str


_COLUMNS = ", ".join(Hole._fields)
_SELECT = f"""
select {_COLUMNS} from ops.trade_gap
where venue = %s and product_id = %s and first_missing_id <= %s and last_missing_id >= %s
order by first_missing_id for update
"""  # noqa: S608 - the only thing put in is the column list above
_INSERT = f"""
insert into ops.trade_gap (venue, product_id, {_COLUMNS})
values (%s, %s, {", ".join(["%s"] * len(Hole._fields))})
"""  # noqa: S608 - the same
_DELETE = "delete from ops.trade_gap where venue = %s and product_id = %s and first_missing_id = %s"
_ATTEMPTED = """
update ops.trade_gap set attempts = attempts + (last_attempt_at is distinct from %(at)s)::integer,
  last_attempt_at = %(at)s, detail = coalesce(%(detail)s, detail)
where venue = %(venue)s and product_id = %(product_id)s and status <> 'healed'
  and first_missing_id <= %(last_id)s and last_missing_id >= %(first_id)s
  and (last_attempt_at is null or last_attempt_at <= %(at)s)
"""
_NOT_HEALED = """
select venue, product_id, first_missing_id, last_missing_id, detected_at, status from ops.trade_gap
where (status = 'open' or (status = 'unrecoverable' and %(unrecoverable)s))
  and (%(venue)s::text is null or venue = %(venue)s)
  and (%(product_id)s::text is null or product_id = %(product_id)s)
  and (%(untouched_since)s::timestamptz is null
    or (detected_at < %(untouched_since)s and coalesce(last_attempt_at < %(untouched_since)s, true)))
order by 1, 2, 3
"""
# Splitting reads rows before it writes them: one writer per product at a time, until the transaction ends.
_LOCK = "select pg_advisory_xact_lock(hashtextextended('ops.trade_gap/' || %s || '/' || %s, 0))"


def open_hole(
    connection: Connection,
    *,
    venue: str,
    product_id: str,
    first_missing_id: int,
    last_missing_id: int,
    cause: str,
    detected_at: datetime,
    detected_by: str = "producer",
    connection_id: str | None = None,
) -> list[tuple[int, int]]:
    """Record missing ids. Ids that the ledger already knows, in whatever state, stay as they are.

    Returns the ranges that became new open rows.
    """
    with connection.transaction():
        known = _overlapping(connection, venue, product_id, first_missing_id, last_missing_id)
        new = _without(
            first_missing_id, last_missing_id, [(hole.first_missing_id, hole.last_missing_id) for hole in known]
        )
        for first, last in new:
            hole = Hole(first, last, detected_at, detected_by, cause, "open", 0, None, connection_id)
            connection.execute(_INSERT, (venue, product_id, *hole))
    return new


def close_hole(
    connection: Connection,
    *,
    venue: str,
    product_id: str,
    first_id: int,
    last_id: int,
    at: datetime,
    status: str = "healed",
    detail: str | None = None,
) -> int:
    """Ids first to last are here now (`healed`) or given up (`unrecoverable`): split the open rows that hold them.

    What stays missing stays open. Adjacent closed pieces of one hole become one row again. `detail` says why it was
    given up. Returns how many ids changed.
    """
    changed = 0
    with connection.transaction():
        for hole in _overlapping(connection, venue, product_id, first_id, last_id):
            if hole.status == "healed" or (hole.status == status):
                continue
            first, last = max(first_id, hole.first_missing_id), min(last_id, hole.last_missing_id)
            changed += last - first + 1
            healed_at = at if status == "healed" else None
            closed = hole._replace(
                first_missing_id=first, last_missing_id=last, status=status, healed_at=healed_at, detail=detail
            )
            before = hole._replace(last_missing_id=first - 1)
            after = hole._replace(first_missing_id=last + 1)
            connection.execute(_DELETE, (venue, product_id, hole.first_missing_id))
            for part in (before, after):
                if part.first_missing_id <= part.last_missing_id:
                    connection.execute(_INSERT, (venue, product_id, *part))
            _insert_merged(connection, venue, product_id, closed)
    return changed


def attempted(
    connection: Connection,
    *,
    venue: str,
    product_id: str,
    first_id: int,
    last_id: int,
    at: datetime,
    detail: str | None = None,
) -> int:
    """A try to heal these ids began at `at`; told again with `detail` it has failed, and this is why.

    Returns how many rows were told.
    """
    values = {"venue": venue, "product_id": product_id, "first_id": first_id, "last_id": last_id}
    return connection.execute(_ATTEMPTED, {**values, "at": at, "detail": detail}).rowcount


def give_up(
    connection: Connection, *, venue: str, product_id: str, first_id: int, last_id: int, at: datetime, detail: str
) -> int:
    """What of these ids is still open will not be tried again by itself. Returns how many ids changed."""
    return close_hole(
        connection,
        venue=venue,
        product_id=product_id,
        first_id=first_id,
        last_id=last_id,
        at=at,
        status="unrecoverable",
        detail=detail,
    )


def not_healed(
    connection: Connection,
    *,
    venue: str | None = None,
    product_id: str | None = None,
    unrecoverable: bool = False,
    untouched_since: datetime | None = None,
) -> list[Known]:
    """Open rows, and those given up where asked; only such as nobody found or tried since `untouched_since`."""
    values = {"venue": venue, "product_id": product_id, "unrecoverable": unrecoverable}
    rows = connection.execute(_NOT_HEALED, {**values, "untouched_since": untouched_since})
    return [Known(*row) for row in rows]


def healed_since(connection: Connection, since: datetime) -> list[Known]:
    """Rows that were healed since then: their trades may still be on their way to silver."""
    rows = connection.execute(
        "select venue, product_id, first_missing_id, last_missing_id, detected_at, status from ops.trade_gap "
        "where status = 'healed' and healed_at >= %s order by 1, 2, 3",
        (since,),
    )
    return [Known(*row) for row in rows]


def listed(
    connection: Connection, *, open_only: bool = True, product_id: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Holes as people read them, newest first; `missing` is trades, `latency_s` from detection to the last of them."""
    cursor = connection.execute(
        "select venue, product_id, first_missing_id, last_missing_id, "
        "last_missing_id - first_missing_id + 1 as missing, cause, status, detected_at, detected_by, attempts, "
        "healed_at, round(extract(epoch from healed_at - detected_at), 3)::double precision as latency_s, "
        "last_attempt_at, detail from ops.trade_gap "
        "where (status = 'open' or not %s) and (%s::text is null or product_id = %s) "
        "order by detected_at desc, venue, product_id, first_missing_id limit %s",
        (open_only, product_id, product_id, limit),
    )
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def products(connection: Connection) -> list[str]:
    """Those of which a hole was ever seen."""
    return [product for (product,) in connection.execute("select distinct product_id from ops.trade_gap order by 1")]


def open_holes(connection: Connection, venue: str, product_id: str | None = None) -> dict[str, list[tuple[int, int]]]:
    """Product to its open ranges, ascending."""
    holes: dict[str, list[tuple[int, int]]] = {}
    rows = connection.execute(
        "select product_id, first_missing_id, last_missing_id from ops.trade_gap "
        "where venue = %s and status = 'open' and (%s::text is null or product_id = %s) order by 1, 2",
        (venue, product_id, product_id),
    )
    for product, first, last in rows:
        holes.setdefault(product, []).append((first, last))
    return holes


def _overlapping(connection: Connection, venue: str, product_id: str, first: int, last: int) -> list[Hole]:
    connection.execute(_LOCK, (venue, product_id))
    return [Hole(*row) for row in connection.execute(_SELECT, (venue, product_id, last, first))]


def _without(first: int, last: int, known: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of first to last that no known range covers; `known` is ascending and disjoint."""
    left = []
    for known_first, known_last in known:
        if first < known_first:
            left.append((first, known_first - 1))
        first = max(first, known_last + 1)
    if first <= last:
        left.append((first, last))
    return left


def _insert_merged(connection: Connection, venue: str, product_id: str, closed: Hole) -> None:
    """Insert a closed piece, joined with the closed pieces of the same hole that touch it."""
    around = _overlapping(connection, venue, product_id, closed.first_missing_id - 1, closed.last_missing_id + 1)
    for other in around:
        same = (other.status, other.cause, other.detected_at) == (closed.status, closed.cause, closed.detected_at)
        if same:
            connection.execute(_DELETE, (venue, product_id, other.first_missing_id))
            closed = closed._replace(
                first_missing_id=min(closed.first_missing_id, other.first_missing_id),
                last_missing_id=max(closed.last_missing_id, other.last_missing_id),
                attempts=max(closed.attempts, other.attempts),
                healed_at=_later(closed.healed_at, other.healed_at),
                last_attempt_at=_later(closed.last_attempt_at, other.last_attempt_at),
            )
    connection.execute(_INSERT, (venue, product_id, *closed))


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((each for each in (one, other) if each is not None), default=None)
