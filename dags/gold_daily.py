"""# gold_daily

Writes yesterday of each product as one row (prices, volume, VWAP, volatility, minutes with a gap, complete hours), and
every earlier day whose bars have changed since.

**Reads** gold.bars · **Writes** gold.product_day · **Schedule** daily at midnight UTC, once gold.bars is complete
through midnight + 60 s

**Rerun** safe: a day is replaced whole, and the same bars give the same rows.
**Backfill** `scripts/airflow backfill create --dag-id gold_daily --from-date 2026-11-20 --to-date 2026-11-22
--reprocess-behavior completed` (three days: both ends are inclusive). A backfilled day leaves the mark of what is dirty
where it was. `make dag DAG=gold_daily DATE=2026-11-20` runs one day.
**When it waits** gold.bars is late: see Dags advance and gold_bars.
**When it fails** the log's last line says why; retry. Exit status 75 means that another writer is at work.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronPartitionTimetable, dag
from assets import GOLD, SOURCES

from marketflow_airflow.account import account
from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.gold import bars_are_complete, deadline, rewrite
from marketflow_airflow.interval import KEY_FORMATS, partition_param
from marketflow_airflow.notify import deadline_met, run_timed_out


@dag(
    schedule=CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, key_format=KEY_FORMATS["day"]),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(hours=3),
    on_failure_callback=run_timed_out,
    params=partition_param("day"),
    deadline=deadline("gold_daily: the day's rows are late"),
    on_success_callback=deadline_met,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.GOLD],
)
def gold_daily():
    name = "gold.product_day"
    bars_are_complete() >> rewrite(name, "day") >> account(name, GOLD[name], SOURCES[name])


gold_daily()
