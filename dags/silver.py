"""# silver

Closes an hour of ingestion: bronze and silver are reconciled from the accounting; where they do not agree, or when a
person asks, the hour is parsed again from bronze and what is missing is inserted. Nothing is overwritten.

**Reads** bronze.* of the hour by `ingested_at` · **Writes** silver.* · **Schedule** hourly

**Rerun** safe: rows that are there are found there.
**Backfill** `scripts/airflow backfill create --dag-id silver --from-date 2026-11-20T00:00 --to-date 2026-11-20T05:00
--reprocess-behavior completed`; both ends are inclusive. `make dag DAG=silver DATE=2026-11-20T05:00` runs one hour.
**When it waits** bronze is not complete through the hour's end: see `marketflow status` and Dag market_stream.
**When it fails** the log's last line names table and hour; a hole in Kafka offsets means that bronze lost a record.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronPartitionTimetable, dag
from assets import BRONZE_TABLES, SILVER, SOURCES

from marketflow_airflow.account import account
from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.freshness import FreshnessSensor
from marketflow_airflow.interval import partition_param
from marketflow_airflow.notify import run_timed_out
from marketflow_airflow.spark import SparkJobOperator


@dag(
    schedule=CronPartitionTimetable("0 * * * *", timezone="UTC", run_offset=-1),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    on_failure_callback=run_timed_out,
    params=partition_param("hour"),
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.SILVER],
)
def silver():
    fresh = FreshnessSensor(
        task_id="bronze_is_complete",
        tables=list(BRONZE_TABLES),
        timeout=timedelta(hours=2),
    )
    close = SparkJobOperator(
        task_id="close_hour",
        job="silver",
        window_option="--close-hour",
        window_grain="hour",
        forced_unless_scheduled=["--force"],
        share_in_backfills=True,
    )
    fresh >> close
    for name, asset in SILVER.items():
        close >> account(name, asset, SOURCES[name])


silver()
