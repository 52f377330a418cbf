"""# quality

Asks whether the data is good, and whether it is there in time: counts reconcile from Kafka to PostgreSQL, values can
be, bars are those of trades, movers those of metrics, quotes are not crossed, assets are not stale. Tells of what is
not, once, and of its end.

**Reads** every layer · **Writes** ops.quality_result, ops.alert · **Schedule** every 15 minutes

`lateness` finds layers that are late, the cause (producer silent, stream down, lag, scheduler behind) and the command
to run. `checks` asks every check of `marketflow quality list`. A hard check that fails fails the task; a soft one is an
alert. Neither stops another Dag: `publish_*` asks the hard checks that are gates anew, of the very rows that it would
publish, and publishes nothing of the table where one fails (`marketflow quality list` says which are gates). What the
judge finds later (`bars_are_of_trades`, …) is told, and keeps no rows out.

**By hand** *Trigger* with names of checks, or with other hours. `marketflow quality run` is the same on a command line.
**Rerun** safe: it reads, and adds results to the history.
**Backfill** makes no sense here: it looks at the present; *Hours* says how far back.
**When it fails** the message names the check, its first failing row and what to do; `marketflow quality history CHECK`
shows since when, `--trend` whether it gets better. A check that says `unjudged` could not be asked: what it reads was
away.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag, task

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.notify import run_timed_out

PARAMS = {
    "checks": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Checks",
        description="Names as `marketflow quality list` has them; all if empty.",
    ),
    "hours": Param(
        26, type="number", exclusiveMinimum=0, title="Hours", description="How far back rows are looked at."
    ),
    "judged_hours": Param(
        2, type="number", exclusiveMinimum=0, title="Judged hours", description="The same for what verify compares."
    ),
}


@dag(
    # beside the quarters, when publication and advance begin
    schedule=CronTriggerTimetable("7-59/15 * * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=75),
    on_failure_callback=run_timed_out,
    params=PARAMS,
    doc_md=__doc__,
    # the next run is a quarter of an hour away: only a server that restarts is worth another try
    default_args=DEFAULT_ARGS | {"retries": 1},
    tags=[Tag.QUALITY],
)
def quality():
    @task(execution_timeout=timedelta(minutes=5))
    def lateness() -> list[str]:
        from marketflow_airflow import quality as run

        return run.lateness()

    @task
    def checks(**context: Any) -> dict[str, Any]:
        from marketflow_airflow import quality as run

        return run.checks(context, list(PARAMS))

    # one after the other, so that the judge's memory and the look at the services do not meet
    lateness() >> checks()


quality()
