"""What the hourly and daily gold Dags share."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk.definitions.deadline import AsyncCallback, DeadlineAlert, DeadlineReference

from marketflow_airflow.freshness import FreshnessSensor
from marketflow_airflow.notify import deadline_missed
from marketflow_airflow.spark import SparkJobOperator
from marketflow_airflow.trial import is_trial

# A trade may reach silver a minute after its own time; the rule of the hourly gold runs.
SETTLING = timedelta(seconds=60)


def deadline(text: str, within: timedelta = timedelta(minutes=50)) -> DeadlineAlert | None:
    """Somebody waits for this: tell them when a run has not ended `within` of being queued.

    None under `airflow dags test`, where no scheduler looks at deadlines, and where Airflow 3.3 ends every successful
    run of a Dag that has one with a traceback and status 1 (apache/airflow#73428).
    """
    if is_trial():
        return None
    return DeadlineAlert(
        name="late",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=within,
        callback=AsyncCallback(deadline_missed, kwargs={"text": text}),
    )


def bars_are_complete() -> FreshnessSensor:
    """Wait until gold.bars holds everything that arrived until a minute after the day's end."""
    return FreshnessSensor(
        task_id="bars_are_complete", tables=["gold.bars"], grain="day", beyond=SETTLING, timeout=timedelta(hours=2)
    )


def silver_is_complete(*tables: str) -> FreshnessSensor:
    """Wait until these silver tables hold everything that arrived until a minute after the hour's end."""
    return FreshnessSensor(
        task_id="silver_is_complete", tables=list(tables), beyond=SETTLING, timeout=timedelta(hours=2)
    )


def rewrite(table: str, grain: str = "hour") -> SparkJobOperator:
    """Rewrite the run's hour (day); a scheduled run also every other closed one that its source touched since."""
    return SparkJobOperator(
        task_id=f"rewrite_{grain}s",
        job="gold",
        arguments=["--table", table],
        window_option="--hours",
        window_grain=grain,
        only_when_scheduled=["--dirty"],
        share_in_backfills=True,
        several_windows=True,
    )
