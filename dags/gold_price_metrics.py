"""# gold_price_metrics

Rewrites the hour's price metrics and top movers, and every closed hour that late observations touched since.

**Reads** silver.asset_prices · **Writes** gold.price_metrics, gold.top_movers · **Schedule** hourly, once silver is
complete through the hour + 60 s

**Rerun** safe: an hour is replaced whole, and the same silver gives the same rows.
**Backfill** `scripts/airflow backfill create --dag-id gold_price_metrics --from-date 2026-11-20T00:00 --to-date
2026-11-20T02:00 --reprocess-behavior completed` (three hours: both ends are inclusive).
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
    deadline=deadline("gold_price_metrics: the hour's metrics and movers are late"),
    on_success_callback=deadline_met,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.GOLD],
)
def gold_price_metrics():
    work = rewrite("gold.price_metrics")
    silver_is_complete("silver.asset_prices") >> work
    for name in ("gold.price_metrics", "gold.top_movers"):
        work >> account(name, GOLD[name], SOURCES[name])


gold_price_metrics()
