"""What every Dag shares: owner, retries with their reason, timeouts, the notifier, tags."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from marketflow_airflow.notify import AlertNotifier, RecoveryNotifier, RetryNotifier
from marketflow_airflow.priority import ScheduleBeforeBackfill


class Tag(StrEnum):
    """Tags, so that the UI's filter is a closed list."""

    SERVICES = "services"
    BRONZE = "bronze"
    SILVER = "silver"
    GOLD = "gold"
    POSTGRES = "postgres"
    FORECAST = "forecast"
    MAINTENANCE = "maintenance"
    CATALOG = "catalog"
    QUALITY = "quality"


# Before any data this platform can hold from its own feeds; a backfill may go as far back as this.
START = datetime(2026, 1, 1, tzinfo=UTC)

DEFAULT_ARGS = {
    "owner": "market-data",
    # a lock held by another writer, a server that restarts: both are gone within a few minutes
    "retries": 4,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=5),
    "execution_timeout": timedelta(minutes=30),
    # in the pool of Spark and among the executor's slots alike
    "weight_rule": ScheduleBeforeBackfill(),
    "on_failure_callback": [AlertNotifier("{{ dag.dag_id }}.{{ ti.task_id }} failed")],
    "on_retry_callback": [RetryNotifier("{{ dag.dag_id }}.{{ ti.task_id }}: its job was ended, and is tried again")],
    "on_success_callback": [RecoveryNotifier()],
}
