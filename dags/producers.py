"""# producers

Keeps the producers (and the simulator, for dataset sim) as they should be, and looks at every source once a minute.

A source that the configuration no longer has is stopped. A producer that hangs (its process lives, and its metrics port
does not answer or its own loop stands still) is restarted when two rounds found it so, then ever more rarely. One whose
venue is silent is told of and never restarted; one that crashes again and again is left to its supervisor's pauses.

**Reads** ops.service_desired, the service manager, each producer's metrics, ops.trade_gap, ops.quota_usage ·
**Writes** ops.service_desired, ops.service_event (only when something was done or changed) · **Schedule** every minute

**By hand** *Trigger* with a service, an action and a reason. Start and stop are kept, with your name, until somebody
chooses otherwise; restart is done once.
**Rerun** safe: it compares what should run with what runs.
**Backfill** makes no sense here: it acts on the present.
**When it fails** the message names the service that should run and cannot be started, or falls over and over (it fails
every run until it has run for five minutes), with its last words;
`marketflow logs producer-coinbase` shows more. A silent source does not fail the run: it is an event and a warning.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import CronTriggerTimetable, dag

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.feed_watch import FEED_SERVICES
from marketflow_airflow.notify import run_timed_out
from marketflow_airflow.services import FeedsOperator, service_params


@dag(
    schedule=CronTriggerTimetable("* * * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=12),
    on_failure_callback=run_timed_out,
    params=service_params(FEED_SERVICES),
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.SERVICES],
)
def producers():
    # one retry: a service that failed once may be up by then, and the next round is a minute away anyway
    FeedsOperator(task_id="round", retries=1, retry_delay=timedelta(seconds=15), execution_timeout=timedelta(minutes=5))


producers()
