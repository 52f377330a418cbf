"""What Dag maintain_lake does beside the lake: the days of PostgreSQL, and what Airflow itself leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

_log = logging.getLogger(__name__)
DEEP_HOUR = 3


def is_deep(params: Mapping[str, Any], run: Any, what: str) -> bool:
    """Whether a run does what is done once a day: asked for, at 03:30 UTC, or later where that was missed."""
    from marketflow import settings
    from marketflow.stack import deep_runs

    if params["deep"] or run.run_type != "scheduled":
        return bool(params["deep"])
    return run.run_after.hour == DEEP_HOUR or deep_runs.is_overdue(settings.load(), what)


def keep_postgres() -> list[str]:
    """Make the partitions of the days ahead and drop those of days that have had their time; a line a table."""
    from marketflow import settings
    from marketflow.warehouse import retention

    lines = [str(kept) for kept in retention.keep(settings.load())]
    for line in lines:
        _log.info("%s", line)
    return lines


def clean_airflow(context: Mapping[str, Any]) -> str:
    """Delete old runs and logs of Airflow, in the deep run alone.

    Raises:
        AirflowSkipException: this is not the deep run, or the deployment keeps Airflow's house itself.
    """
    from marketflow import settings
    from marketflow.stack import deep_runs, housekeeping

    if not is_deep(context["params"], context["dag_run"], deep_runs.AIRFLOW):
        raise AirflowSkipException(f"once a day, in the run of {DEEP_HOUR:02d}:30 UTC, or with `deep`")
    loaded = settings.load()
    if loaded.deployment != "embedded":
        raise AirflowSkipException(f"deployment {loaded.deployment} cleans up after its Airflow itself")
    done = str(housekeeping.clean_airflow(loaded, datetime.now(UTC)))
    deep_runs.done(loaded, deep_runs.AIRFLOW)
    _log.info("%s", done)
    return done
