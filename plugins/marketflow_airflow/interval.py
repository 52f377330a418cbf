"""The one resolver of a run's window: the same answer for scheduled, backfill, form, REST and `dags test` runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.notify import KnownFailure

PARTITION = "partition"
KEY_FORMATS = {"hour": "%Y-%m-%dT%H:%M:%S", "day": "%Y-%m-%d"}
STEPS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
# a run is due at its window's end, by the clock of another machine perhaps
CLOCKS_DIFFER = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Window:
    """[start, end) in UTC, the partition key that names it, and what it was resolved from."""

    start: datetime
    end: datetime
    key: str
    source: str


def partition_param(grain: str) -> dict[str, Param]:
    """The parameter by which a person asks for one window in the UI's form or with `dags test -c`."""
    return {
        PARTITION: Param(
            None,
            type=["null", "string"],
            format="date-time",
            title=f"Start of the {grain} (UTC)",
            description=f"Empty for the run's own {grain}. Any time within the {grain} will do.",
        )
    }


# of Dags that have the parameter; all others are by the hour
GRAINS = {"gold_daily": "day"}


def name_of(context: Mapping[str, Any]) -> str:
    """The key of the window for which somebody, or the schedule, made this run; "" where nobody said one."""
    run = context["dag_run"]
    if getattr(run, "partition_key", None):
        return str(run.partition_key)
    grain = GRAINS.get(run.dag_id, "hour")
    try:
        asked = _asked(context.get("params") or {}, grain)
    except AirflowFailException:  # it is no time, which is why the task fails
        return ""
    return asked.strftime(KEY_FORMATS[grain]) if asked else ""


def floor(at: datetime, grain: str) -> datetime:
    """The start of the hour or day that `at` lies in, UTC."""
    at = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return at.replace(hour=0) if grain == "day" else at


def _asked(params: Mapping[str, Any], grain: str) -> datetime | None:
    text = params.get(PARTITION)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        raise AirflowFailException(f"partition {text!r} is no time, as 2026-11-20T05:00:00Z is") from None
    return floor(at if at.tzinfo else at.replace(tzinfo=UTC), grain)


def resolve(
    context: Mapping[str, Any], grain: str, *, now: datetime | None = None, known: Collection[str] = (PARTITION,)
) -> Window:
    """The window of this run: its partition key, else the asked parameter, else its logical date, else the last one.

    `known` are the keys of the Dag's form. `now`, by which a logical date's hour is over or not, is the run's own
    `run_after`, its tick or the moment of its trigger: the same in each task and try, and after it was cleared.

    A key is parsed rather than `partition_date` read, which is None for keys added at run time.

    Raises:
        AirflowFailException: the run was given a key that the form does not have, or something that is no time; the
            key and the parameter name different windows, or the key is not the start of one. Trying again won't help.
        KnownFailure: the window is not over, and a run that waits for it would hold up those after it. Only a person
            can have asked for that; nobody else is told.
    """
    refuse_unknown(context, known)
    clock = now or datetime.now(UTC)
    run, asked = context["dag_run"], _asked(context.get("params") or {}, grain)
    keyed = of_key(run.partition_key, grain) if run.partition_key else None
    if keyed and asked and keyed != asked:
        raise AirflowFailException(f"partition {asked} contradicts the run's partition_key {run.partition_key}")
    if keyed:
        start, source = keyed, "partition_key"
    elif asked:
        start, source = asked, "params"
    else:
        if run.logical_date and run.logical_date > clock + CLOCKS_DIFFER:
            raise KnownFailure(f"the date {run.logical_date} is in the future")
        start, source = _by_date(run, grain, now or run.run_after or clock)
    end = start + STEPS[grain]
    if end > clock + CLOCKS_DIFFER:
        raise KnownFailure(f"the {grain} of {start:{KEY_FORMATS[grain]}} UTC is not over: ask again after {end}")
    return Window(start, end, start.strftime(KEY_FORMATS[grain]), source)


def _by_date(run: Any, grain: str, now: datetime) -> tuple[datetime, str]:
    if run.logical_date and floor(run.logical_date, grain) + STEPS[grain] <= now:
        return floor(run.logical_date, grain), "logical_date"
    # by hand with nothing, or `dags test` without a date: the last complete window
    return floor(run.run_after or now, grain) - STEPS[grain], "last_complete"


def of_key(key: str, grain: str) -> datetime:
    """The start of the window that a partition key names.

    Raises:
        AirflowFailException: it names the start of none.
    """
    try:
        start = datetime.strptime(key, KEY_FORMATS[grain]).replace(tzinfo=UTC)
    except ValueError:
        start = None
    if start is None or floor(start, grain) != start:
        example = datetime(2026, 11, 20, 5 if grain == "hour" else 0, tzinfo=UTC).strftime(KEY_FORMATS[grain])
        raise AirflowFailException(
            f"partition key {key!r} does not name the start of a UTC {grain}, as {example!r} does"
        )
    return start
