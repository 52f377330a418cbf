"""# backfill_history

Brings trades or candles of an interval from a venue's REST history, through Kafka and every layer like anything else.

**Reads** the venue's REST, ops.backfill · **Writes** crypto.trades.raw or crypto.candles.raw with origin `backfill`,
ops.backfill · **Schedule** none: by hand

**By hand** *Trigger* with a venue, a product, what (trades, or candles:1m and the like) and start and end, UTC. Without
start and end it takes the hour that the run is of: its logical date's, else the last complete one.
Bars, features and PostgreSQL follow by themselves: `advance` and the hourly Dags find the hours that were touched.
**Rerun** safe: it goes on from its cursor, and an interval that is done does nothing. *Again* starts over; what is in
silver stays there once.
**Backfill** this is one, of any length: give start and end. Hour by hour it is `scripts/airflow dags trigger
backfill_history --logical-date 2026-11-20T05:00:00+00:00`; `airflow backfill create` refuses a Dag without a schedule.
**When it fails** the log's last line says what the venue answered, or that another process is at this interval (exit
status 75). A retry goes on; after a ban (403, 418, 451) wait as long as the venue says. `marketflow backfill --list`
shows how far each one is, and what a venue's history lacks.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.notify import run_timed_out

PARAMS = {
    "venue": Param("coinbase_exchange", type="string", title="Venue", description="For candles cryptocompare, too."),
    "product": Param("BTC-USD", type="string", title="Product", description="As BTC-USD, or BTC-USDT at binance."),
    "what": Param("trades", type="string", title="What", description="trades, or candles:1m, 5m, 15m, 1h, 6h, 1d."),
    "start": Param(None, type=["null", "string"], format="date-time", title="Start (UTC), inclusive"),
    "end": Param(None, type=["null", "string"], format="date-time", title="End (UTC), exclusive"),
    "again": Param(False, type="boolean", title="Again", description="Start over what is done."),
}


@dag(
    schedule=None,
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(days=4),
    on_failure_callback=run_timed_out,
    params=PARAMS,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.SERVICES, Tag.SILVER],
)
def backfill_history():
    # a retry goes on where the last try was; a venue that is away is back within the hour
    @task(retries=6, execution_timeout=timedelta(hours=12))
    def bring(**context: Any) -> dict[str, Any]:
        import logging

        from marketflow_airflow.backfill import bring as bring_history

        report = bring_history(context, list(PARAMS), logging.getLogger(__name__).info)
        logging.getLogger(__name__).info("%s", report)
        return report.as_dict()

    bring()


backfill_history()
