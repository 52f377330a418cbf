"""# market_stream

Keeps the Spark stream as it should be, and looks at its batches and its lag behind Kafka once a minute.

**Reads** ops.service_desired, the service manager, ops.stream_progress, Kafka's end offsets ·
**Writes** ops.service_desired, ops.service_event (only when something was done or changed) · **Schedule** every minute

A topic that is missing in Kafka is made, unless bronze has read of it before: then what Kafka lost is told.

**By hand** *Trigger* with service market-stream, an action and a reason. Stop is graceful: the batch under way ends.
Start and stop are kept, with your name, until somebody chooses otherwise.
**Rerun** safe: it compares what should run with what runs. The stream is started again only after three minutes
in which one of its queries had no batch that started, ended or idled (ten while one is under way), seen twice a minute
apart; where that did not help, after 10 minutes, 30 minutes, then every two hours.
**Backfill** makes no sense here: it acts on the present. Nothing is lost while the stream is down: Kafka keeps it.
**When it fails** the message says why the stream cannot be started, with its last words; `marketflow logs
market-stream` shows more. A stream that lags does not fail the run: it is an event and a warning.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.notify import run_timed_out
from marketflow_airflow.services import StreamOperator, service_params
from marketflow_airflow.stream_watch import STREAM


@dag(
    schedule=CronTriggerTimetable("* * * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=12),
    on_failure_callback=run_timed_out,
    params=service_params((STREAM,)),
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.SERVICES, Tag.BRONZE],
)
def market_stream():
    # one retry: the next round is a minute away anyway; stopping gracefully may take the stream's last batch
    StreamOperator(
        task_id="round", retries=1, retry_delay=timedelta(seconds=15), execution_timeout=timedelta(minutes=5)
    )


market_stream()
