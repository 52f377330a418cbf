"""# gold_bars

Rewrites the hour's bars (1m, 5m, 15m, 1h), every closed hour that late or healed trades touched since the last run, and
the bars of their days (1d), which are folded from their hours.

**Reads** silver.trades · **Writes** gold.bars · **Schedule** hourly, once silver is complete through the hour + 60 s

**Rerun** safe: an hour is replaced whole, and the same silver gives the same rows.
**Backfill** `scripts/airflow backfill create --dag-id gold_bars --from-date 2026-11-20T00:00 --to-date 2026-11-20T02:00
--reprocess-behavior completed` (three hours: both ends are inclusive). A backfilled hour leaves the mark of what is
dirty where it was. Its day's bar is folded anew; where another hour of the day is dirty, Dag advance will do it.
`make dag DAG=gold_bars DATE=2026-11-20T05:00` runs one hour.
**When it waits** silver is late: see Dag advance.
**When it fails** the log's last line names table and hours; retry. Exit status 75 means that another writer is at work.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronPartitionTimetable, dag
from assets import GOLD, SOURCES

from marketflow_airflow.account import account
from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.gold import deadline, rewrite, silver_is_complete
from marketflow_airflow.interval import partition_param
from marketflow_airflow.notify import deadline_met, run_timed_out


@dag(
    schedule=CronPartitionTimetable("0 * * * *", timezone="UTC", run_offset=-1),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    on_failure_callback=run_timed_out,
    params=partition_param("hour"),
    deadline=deadline("gold_bars: the hour's bars are late"),
    on_success_callback=deadline_met,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.GOLD],
)
def gold_bars():
    name = "gold.bars"
    silver_is_complete("silver.trades") >> rewrite(name) >> account(name, GOLD[name], SOURCES[name])


gold_bars()
