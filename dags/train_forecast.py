"""# train_forecast

Trains a baseline forecast, a small LightGBM model of the direction over the next 10 or 50 trades, and says beside
guesses that need no model what its score is worth. Off until somebody turns it on: a model that nobody reads is waste.

**Reads** gold.trade_features (PyIceberg, no Spark): the newest 200,000 rows of the day before the end of the run's
hour · **Writes** the lake's bucket under forecast/, ops.forecast_run · **Schedule** daily at 02:20 UTC, once gold is
complete through the hour; paused when it is created

**By hand** *Trigger* with product, venue, horizon, and start or end for other rows than the newest day's.
`marketflow forecast train` is the same on a command line, `marketflow forecast list` and `show` tell of every run.
**Rerun** safe: the same snapshot gives the same model, to the byte; every run is a row of its own.
**Backfill** `make dag DAG=train_forecast DATE=2026-11-20T05:00` trains on the day before 06:00 of the present snapshot.
**When it waits** gold is late: see Dag gold_trade_features.
**When it fails** the log's last line says how many rows there are and how many are needed. A model that does not beat
the guesses is a result, not a failure.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag, task

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.freshness import FreshnessSensor
from marketflow_airflow.notify import run_timed_out

PARAMS = {
    "product": Param("BTC-USD", type="string", title="Product"),
    "venue": Param(
        "coinbase_exchange", type=["null", "string"], title="Venue", description="Empty if only one has it."
    ),
    "horizon": Param(10, type="integer", enum=[10, 50], title="Horizon", description="Trades ahead."),
    "start": Param(None, type=["null", "string"], format="date-time", title="Start (UTC), inclusive"),
    "end": Param(None, type=["null", "string"], format="date-time", title="End (UTC), exclusive"),
}


@dag(
    schedule=CronTriggerTimetable("20 2 * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    dagrun_timeout=timedelta(hours=3),
    on_failure_callback=run_timed_out,
    params=PARAMS,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.GOLD, Tag.FORECAST],
)
def train_forecast():
    fresh = FreshnessSensor(
        task_id="gold_is_complete", tables=["gold.trade_features"], known=list(PARAMS), timeout=timedelta(hours=2)
    )

    # rows that are too few stay too few; a server that restarts, or a snapshot that expired meanwhile, is worth a try
    @task(retries=2, execution_timeout=timedelta(minutes=30))
    def train(**context: Any) -> dict[str, Any]:
        import logging

        from marketflow_airflow.forecast import train as train_on_gold

        report = train_on_gold(context, list(PARAMS))
        logging.getLogger(__name__).info("%s", report["verdict"])
        return report

    fresh >> train()


train_forecast()
