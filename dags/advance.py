"""# advance

Turns new bronze messages into typed, deduplicated trades, quotes, prices and candles, and brings gold's open hour up to
date.

**Reads** bronze.* · **Writes** silver.*, every touched hour of gold.bars, gold.price_metrics, gold.top_movers and
gold.trade_features, the open one too (`is_complete`, `is_final` false) · **Schedule** every 5 minutes

**Rerun** safe: a watermark moves only with the rows it covers.
**Backfill** not this Dag: `scripts/airflow backfill create --dag-id silver …` restates whole hours.
**When it fails** the log's last line names table and batch. Each source goes its own way, so the others are up to date;
`marketflow quarantine show` lists what was refused, `marketflow sql accounting` where every message went.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag
from assets import GOLD, OPEN_HOUR_TABLES, SILVER, SOURCES

from marketflow_airflow.account import account
from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.notify import run_timed_out
from marketflow_airflow.spark import SparkJobOperator


@dag(
    schedule=CronTriggerTimetable("*/5 * * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=75),
    on_failure_callback=run_timed_out,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.SILVER, Tag.GOLD],
)
def advance():
    # the next run is five minutes away and takes up whatever this one left: only a held lock, or a job that was killed,
    # is worth another try
    work = SparkJobOperator(task_id="work", job="advance", retries=1, retry_only_when_busy=True)
    assets = SILVER | {name: GOLD[name] for name in OPEN_HOUR_TABLES}
    for name, asset in assets.items():  # one named task each, so that each emits its own asset
        work >> account(name, asset, SOURCES[name], alone=True)


advance()
