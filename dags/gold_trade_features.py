"""# gold_trade_features

Rewrites the hour's trade features and targets, and every closed hour that late or healed trades and quotes touched
since the last run: up to 500 trades after a change and 50 before it. Rows whose targets waited for later trades get
them here.

**Reads** silver.trades, silver.quotes · **Writes** gold.trade_features, ops.gold_accounting · **Schedule** hourly,
once both are complete through the hour + 60 s

**Rerun** safe: an hour is replaced whole, and the same silver gives the same rows.
**Backfill** `scripts/airflow backfill create --dag-id gold_trade_features --from-date 2026-11-20T00:00 --to-date
2026-11-20T02:00 --reprocess-behavior completed` (three hours: both ends are inclusive). A backfilled hour leaves the
mark of what is dirty where it was. `make dag DAG=gold_trade_features DATE=2026-11-20T05:00` runs one hour.
**When it waits** silver is late: see Dag advance.
**When it fails** the log's last line names table and hours; retry. Exit status 75 means that another writer is at work.
Trades that have fewer than 500 before them are left out, and counted in ops.gold_accounting.
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
    deadline=deadline("gold_trade_features: the hour's features are late"),
    on_success_callback=deadline_met,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.GOLD],
)
def gold_trade_features():
    name = "gold.trade_features"
    silver_is_complete("silver.trades", "silver.quotes") >> rewrite(name) >> account(name, GOLD[name], SOURCES[name])


gold_trade_features()
