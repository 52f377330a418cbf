"""What a run of Dag backfill_history is to bring: its form's start and end, or the hour that the run is of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from marketflow import settings
from marketflow.errors import ConfigurationError
from marketflow.ingest.backfill import Report, backfill
from marketflow.ingest.backfill_wish import Wish, moment
from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.interval import resolve
from marketflow_airflow.trial import is_trial

Say = Callable[[str], None]


def wish_of(context: Mapping[str, Any], known: Collection[str], say: Say, *, now: datetime | None = None) -> Wish:
    """The wish of a run; `known` are the keys of the form.

    Raises:
        AirflowFailException: the form has a key too many, one of start and end alone, or what is no time.
    """
    refuse_unknown(context, known)
    asked = context["params"]
    if bool(asked["start"]) != bool(asked["end"]):
        raise AirflowFailException("start and end are given together, or neither: then it is the run's own hour")
    if asked["start"]:
        try:
            start, end = (moment(name, asked[name], say) for name in ("start", "end"))
        except ConfigurationError as error:
            raise AirflowFailException(str(error)) from error
    else:
        window = resolve(context, "hour", now=now, known=known)
        start, end = window.start, window.end
        say(f"no start and end: the hour {window.key}, by {window.source}")
    return Wish(asked["venue"], asked["product"], asked["what"], start, end)


def bring(context: Mapping[str, Any], known: Collection[str], say: Say) -> Report:
    """Do it. What cannot be is not tried again; what failed otherwise is, and goes on: a run starts over once.

    Raises:
        AirflowFailException: the wish cannot be met.
    """
    wish = wish_of(context, known, say)
    # a trial's start is the date that it was given
    begun = None if is_trial() else context["dag_run"].start_date
    try:
        return backfill(settings.load(), wish, again=context["params"]["again"], begun=begun, say=say)
    except ConfigurationError as error:
        raise AirflowFailException(str(error)) from error
