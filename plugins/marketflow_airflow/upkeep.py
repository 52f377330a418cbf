"""What Dag maintain_lake does beside the lake: the days of PostgreSQL, and what Airflow itself leaves behind."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from marketflow import settings

_log = logging.getLogger(__name__)


def keep_postgres() -> list[str]:
    """Make the partitions of the days ahead and drop those of days that have had their time; a line a table."""
    from marketflow.warehouse import retention

    lines = [str(kept) for kept in retention.keep(settings.load())]
    for line in lines:
        _log.info("%s", line)
    return lines


def clean_airflow(context: Mapping[str, Any], deep_hour: int) -> str:
    """Delete old runs and logs of Airflow, in the deep run alone.

    Raises:
        AirflowSkipException: this is not the deep run, or the deployment keeps Airflow's house itself.
    """
    from marketflow.stack import housekeeping

    if not (context["params"]["deep"] or context["dag_run"].run_after.hour == deep_hour):
        raise AirflowSkipException(f"once a day, in the run of {deep_hour:02d}:30 UTC, or with `deep`")
    loaded = settings.load()
    if loaded.deployment != "embedded":
        raise AirflowSkipException(f"deployment {loaded.deployment} cleans up after its Airflow itself")
    done = str(housekeeping.clean_airflow(loaded, datetime.now(UTC)))
    _log.info("%s", done)
    return done
