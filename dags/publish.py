"""One publication Dag per gold table, made by a factory; each one's runbook is its `doc_md`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable, dag, task
from assets import GOLD, OPEN_HOUR_TABLES, OWNERS, PUBLISHED

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.freshness import FreshnessSensor
from marketflow_airflow.gold import deadline
from marketflow_airflow.notify import deadline_met, run_timed_out

RUNBOOK = """# publish_{short}

Copies to PostgreSQL every hour of {table} that the lake rewrote since the last publication.

**Reads** the lake's {table} · **Writes** {table} in PostgreSQL, ops.publish_audit · **Schedule** when {table} was
rewritten, and {again}: the event only wakes it, the work list is in the table's own snapshots.

**Rerun** safe: whole hours are deleted and inserted in one transaction, together with the mark of what was published.
**Backfill** none needed: a backfilled hour of gold is in a snapshot, and the next run publishes it.
**When it waits** the lake's gold is more than {late} late: see Dags advance and gold_*.
**When it fails** nothing was changed; `marketflow sql "select * from ops.publish_audit"` says where it stands. Where a
hard check of quality failed, PostgreSQL keeps the rows it had, and the message says which row is wrong and what to run:
write its hour again with Dag {owner}. `marketflow quality history --table {table}` shows since when.
"""


def publication(table: str) -> None:
    """Declare the Dag of one gold table."""
    short = table.removeprefix("gold.")
    often = table in OPEN_HOUR_TABLES  # a daily table has news once a day, after midnight
    cron, again = ("*/15 * * * *", "every 15 minutes") if often else ("20 3 * * *", "once a day at 03:20 UTC")
    hours, late = (1, "an hour") if often else (25, "25 hours")

    @dag(
        dag_id=f"publish_{short}",
        schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable(cron, timezone="UTC"), assets=[GOLD[table]]),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        dagrun_timeout=timedelta(hours=3),
        on_failure_callback=run_timed_out,
        deadline=deadline(f"publish_{short}: PostgreSQL is late", timedelta(minutes=30)),
        on_success_callback=deadline_met,
        doc_md=RUNBOOK.format(short=short, table=table, again=again, late=late, owner=OWNERS[table]),
        default_args=DEFAULT_ARGS,
        tags=[Tag.GOLD, Tag.POSTGRES],
    )
    def declare() -> None:
        @task(inlets=[GOLD[table]], outlets=[PUBLISHED[table]])
        def publish(*, outlet_events: Any = None) -> dict[str, Any]:
            from marketflow_airflow import quality

            report = quality.publish(table)
            outlet_events[PUBLISHED[table]].extra = report
            return report

        fresh = FreshnessSensor(
            task_id="gold_is_there", tables=[table], beyond=timedelta(hours=-hours), timeout=timedelta(minutes=45)
        )
        fresh >> publish()

    declare()


for gold_table in GOLD:
    publication(gold_table)
