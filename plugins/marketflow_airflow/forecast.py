"""What a run of Dag train_forecast trains on: its form's interval, or the day before the end of the run's hour."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from marketflow import settings
from marketflow.errors import ConfigurationError, InputError
from marketflow.forecast.lake import Wish
from marketflow.stack.forecast import train_on_lake
from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.interval import resolve

REACH = timedelta(days=1)


def wish_of(context: Mapping[str, Any], known: Collection[str], *, now: datetime | None = None) -> Wish:
    """The wish of a run; `known` are the keys of the form.

    Raises:
        AirflowFailException: the form has a key too many.
    """
    refuse_unknown(context, known)
    asked = context["params"]
    start, end = asked["start"], asked["end"]
    if not start and not end:
        end = resolve(context, "hour", now=now, known=known).end
        start = end - REACH
    return Wish(asked["product"], asked["venue"] or None, asked["horizon"], start or None, end or None)


def train(context: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Do it. What another try would not cure fails the run at once.

    Raises:
        AirflowFailException: too few rows, an unknown product, or whatever else is wrong with the wish.
    """
    try:
        kept = train_on_lake(settings.load(), wish_of(context, known))
    except (ConfigurationError, InputError) as error:
        raise AirflowFailException(str(error)) from error
    return {name: kept[name] for name in ("run_id", "beats_baseline", "verdict", "model_uri", "source")}
