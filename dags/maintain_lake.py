"""# maintain_lake

Keeps the lake light: compacts closed partitions, expires snapshots, rewrites manifests; once a day removes orphans too.

**Reads and writes** every lake table · **Schedule** hourly; the run at 03:30 UTC is the deep one

**Rerun** safe: row counts are compared before and after, and a difference fails the run.
**Backfill** makes no sense here.
**When it fails** the log names the table; a table that another writer holds is left for the next run. The newest
snapshot that carries a watermark is never expired.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, Param, dag

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.spark import SparkJobOperator

DEEP_HOUR = 3


@dag(
    schedule=CronTriggerTimetable("30 * * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=2),
    params={"deep": Param(False, type="boolean", title="Also remove orphan files")},
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.MAINTENANCE],
)
def maintain_lake():
    deep = f"{{{{ '--deep' if params.deep or dag_run.run_after.hour == {DEEP_HOUR} else '' }}}}"
    SparkJobOperator(task_id="maintain", job="maintain", arguments=[deep], execution_timeout=timedelta(hours=1))


maintain_lake()
