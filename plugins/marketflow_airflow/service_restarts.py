"""When a service that hangs may be started again. No Airflow.

A first round only notes it: after the machine slept or was busy it would see the past. The next one restarts it, and
where that did not help the pauses grow, since every start of a producer asks its venue for a connection.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

    from marketflow.services.desired import Event

SEEN_AGAIN_AFTER = timedelta(seconds=30)
# how far back restarts count, and the pause after none, one, two, and as many as there are
COUNTED_FOR = timedelta(hours=6)
PAUSES = (timedelta(0), timedelta(minutes=10), timedelta(minutes=30), timedelta(hours=2))

_NEWEST = "select event, at from ops.service_event where service = %s order by at desc limit 1"
# whoever restarted it: what follows the finding was tried against it
_RESTARTS = """
select at from (
    select event, at, lag(event) over (order by at) as found
    from ops.service_event where service = %s and at > %s
) as life
where event = 'restarted' and found = %s order by at
"""


def found_at(connection: psycopg.Connection[Any], service: str, event: Event) -> datetime | None:
    """When an earlier round found this, if nothing was done or changed since."""
    row = connection.execute(_NEWEST, (service,)).fetchone()
    if row is None or row[0] != event:
        return None
    at: datetime = row[1]
    return at


def seen_before(found: datetime | None, now: datetime) -> bool:
    """Whether an earlier round than this one and its own retry found it."""
    return found is not None and now - found >= SEEN_AGAIN_AFTER


def too_soon(connection: psycopg.Connection[Any], service: str, event: Event, now: datetime) -> str | None:
    """Why it is not restarted yet again, as a sentence with the time of the next try; None where it may be."""
    rows = connection.execute(_RESTARTS, (service, now - COUNTED_FOR, event)).fetchall()
    pause = PAUSES[min(len(rows), len(PAUSES) - 1)]
    if not rows or now - rows[-1][0] >= pause:
        return None
    times = "once" if len(rows) == 1 else f"{len(rows)} times"
    return (
        f"It was restarted {times} in {COUNTED_FOR.total_seconds() / 3600:g} hours and that did not help; "
        f"it is tried again after {rows[-1][0] + pause:%H:%M:%S} UTC."
    )
