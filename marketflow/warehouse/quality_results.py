"""ops.quality_result: what every check found, kept so that one can see whether it gets better."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from marketflow.contracts.ops import QUALITY_RESULT
from marketflow.settings import Settings
from marketflow.warehouse import day_partitions, retention
from marketflow.warehouse.checks import UNASKED, Connection, Result
from marketflow.warehouse.connection import connect

_NAMES = QUALITY_RESULT.column_names
_INSERT = (
    f"insert into ops.quality_result ({', '.join(_NAMES)}) values ({', '.join(f'%({name})s' for name in _NAMES)}) "  # noqa: S608 - the contract's own names
    "on conflict do nothing"
)

_UNASKED = """
with lately as (
    select check_name, checked_at, detail, detail like %(begins)s as unasked
    from ops.quality_result
    where stage = 'scheduled' and severity = 'hard' and checked_at > now() - interval '2 days'
),
asked as (select check_name, max(checked_at) as at from lately where not unasked group by check_name)
select check_name, min(checked_at), (array_agg(detail order by checked_at desc))[1]
from lately left join asked using (check_name)
where unasked and (asked.at is null or checked_at > asked.at)
group by check_name having min(checked_at) <= now() - %(least)s order by check_name
"""


def record(connection: Connection, results: Iterable[Result], run_id: str, stage: str) -> None:
    """Write results; `stage` is scheduled or publish."""
    for result in results:
        row = {
            "check_name": result.name,
            "checked_at": result.checked_at,
            "passed": result.outcome == "passed",
            "detail": result.detail,
            "run_id": run_id,
            "stage": stage,
            "subject": result.check.subject,
            "outcome": result.outcome,
            "severity": result.check.severity,
            "owner": result.check.owner,
            "failing_rows": result.failing_rows,
            "sample": json.dumps(result.sample, default=str),
            "seconds": result.seconds,
        }
        connection.execute(_INSERT, row)


@dataclass(frozen=True, slots=True)
class Unasked:
    """A check that could not be asked, since when, and why the last time."""

    name: str
    since: datetime
    why: str


def unasked(connection: Connection, least: timedelta) -> list[Unasked]:
    """Hard checks that each run has failed to ask for at least so long, by name."""
    rows = connection.execute(_UNASKED, {"begins": f"{UNASKED}%", "least": least}).fetchall()
    return [Unasked(name, since, why.removeprefix(UNASKED)) for name, since, why in rows]


def trim(connection: Connection) -> int:
    """Forget days that are older than 90 days; returns how many rows."""
    return day_partitions.drop_before(connection, QUALITY_RESULT, datetime.now(UTC) - retention.QUALITY_KEPT)


def history(
    settings: Settings, check_name: str | None, limit: int, *, subject: str | None = None
) -> list[dict[str, Any]]:
    """Newest results first, of one check or of all, of one table or of all."""
    return _rows(
        settings,
        "select checked_at, check_name, stage, outcome, severity, owner, failing_rows, detail, run_id "
        "from ops.quality_result where (%(name)s::text is null or check_name = %(name)s) "
        "and (%(subject)s::text is null or subject = %(subject)s) order by checked_at desc limit %(limit)s",
        {"name": check_name, "subject": subject, "limit": limit},
    )


def trend(settings: Settings, check_name: str | None, days: int, *, subject: str | None = None) -> list[dict[str, Any]]:
    """Days of each check, newest first, of one check or of all, of one table or of all."""
    return _rows(
        settings,
        "select check_name, day, runs, passed, failed, unjudged, pass_rate_pct, worst_failing_rows, last_failing_rows "
        "from ops.quality_trend where (%(name)s::text is null or check_name = %(name)s) "
        "and (%(subject)s::text is null "
        "or check_name in (select check_name from ops.quality_result where subject = %(subject)s)) "
        "and day > (now() at time zone 'utc')::date - %(days)s order by day desc, check_name",
        {"name": check_name, "subject": subject, "days": days},
    )


def _rows(settings: Settings, statement: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    with connect(settings, "marketflow_reader") as connection, connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(statement, values).fetchall()
