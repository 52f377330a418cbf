"""What Dag quality does in its tasks, and how a refused publication fails its own."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from marketflow import settings
from marketflow.errors import ConfigurationError, QualityError
from marketflow_airflow.form import refuse_unknown

_log = logging.getLogger(__name__)


def lateness() -> list[str]:
    """Tell of late layers; returns a line each. A layer that is late fails nothing: its own Dag does.

    Raises:
        RuntimeError: PostgreSQL does not answer.
    """
    from marketflow.quality.run import tell_of_lateness

    found, asked = tell_of_lateness(settings.load(), say=_log.info)
    if not asked:
        raise RuntimeError("PostgreSQL does not answer, so no layer's age is known: `marketflow logs postgres`")
    lines = [f"{one.title}. {one.cause}. Run: {one.command}" for one in found]
    for line in lines:
        _log.warning("%s", line)
    return lines


def checks(context: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Ask the checks of the form (all without names).

    Raises:
        AirflowFailException: a hard check failed, which another try would not cure, or the form names no check.
        RuntimeError: PostgreSQL was away.
    """
    from marketflow.quality import run as quality

    refuse_unknown(context, known)
    asked = context["params"]
    try:
        report = quality.run(
            settings.load(),
            names=asked["checks"] or (),
            hours=asked["hours"],
            judged_hours=asked["judged_hours"],
            run_id=context["dag_run"].run_id,
            say=_log.info,
        )
        for one in report.results:
            level = logging.INFO if one.outcome == "passed" else logging.WARNING
            _log.log(level, "%s: %s (%s): %s", one.name, one.outcome, one.check.severity, one.detail)
        if not report.recorded:
            raise RuntimeError("PostgreSQL does not answer, so nothing was judged: `marketflow logs postgres`")
        report.raise_if_refused()
    except (ConfigurationError, QualityError) as error:
        raise AirflowFailException(str(error)) from error
    counts = report.as_dict()
    return {name: counts[name] for name in ("run_id", "passed", "failed", "unjudged")} | {
        "not_passed": [one.name for one in report.results if one.outcome != "passed"]
    }


def publish(table: str) -> dict[str, Any]:
    """Publish one gold table.

    Raises:
        AirflowFailException: a hard check keeps its rows out; another try would find the same rows.
    """
    from marketflow.warehouse import publish as publication

    try:
        return publication.publish(settings.load(), table).as_dict()
    except QualityError as error:
        raise AirflowFailException(str(error)) from error
