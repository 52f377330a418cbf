"""# heal_gaps

Looks for holes in silver's trade ids that no producer saw, fills what is missing from the venues' REST history through
Kafka like anything else, and brings the gap ledger up to date. Producers heal by themselves what they see; this is for
what they could not see, could not fill, or were stopped in.

**Reads** silver.trades (files' metadata; ids only where a day does not add up), ops.trade_gap, the venues' REST ·
**Writes** crypto.trades.raw with origin `heal`, ops.trade_gap · **Schedule** every 10 minutes

**By hand** *Trigger* with a venue, a product, or both and the first and last trade id: those are tried whoever else is
at work on them. *Redo unrecoverable* tries again what was given up. `marketflow heal` is the same on a command line.
**Rerun** safe: a trade that comes twice is one row in silver, and the ledger never holds an id twice.
**Backfill** makes no sense here: it looks at all that is in silver. For trades from before the first one: another Dag.
**When it fails** the log's last line says what was away, or that another run is at it (exit status 75). A hole that
stays does not fail the run: `marketflow gaps` lists it with the reason, and every bar across it has `has_gap`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import CronTriggerTimetable, Param, dag, task

from marketflow_airflow.defaults import DEFAULT_ARGS, START, Tag
from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.notify import run_timed_out

PARAMS = {
    "venue": Param(None, type=["null", "string"], title="Venue", description="As coinbase_exchange; all if empty."),
    "product": Param(None, type=["null", "string"], title="Product", description="Such as BTC-USD; all if empty."),
    "first": Param(None, type=["null", "integer"], minimum=0, title="First trade id"),
    "last": Param(None, type=["null", "integer"], minimum=0, title="Last trade id"),
    "redo_unrecoverable": Param(False, type="boolean", title="Redo unrecoverable"),
}


@dag(
    # advance runs every five minutes and is through with silver by then
    schedule=CronTriggerTimetable("4-59/10 * * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=75),
    on_failure_callback=run_timed_out,
    params=PARAMS,
    doc_md=__doc__,
    default_args=DEFAULT_ARGS,
    tags=[Tag.SERVICES, Tag.SILVER],
)
def heal_gaps():
    # the next run is ten minutes away: only a held lock or a server that restarts is worth another try
    @task(retries=1)
    def heal(**context: Any) -> dict[str, int]:
        import logging

        from marketflow import settings
        from marketflow.stack import heal as stack_heal

        refuse_unknown(context, list(PARAMS))
        asked = context["params"]
        wish = stack_heal.Wish(
            asked["venue"], asked["product"], asked["first"], asked["last"], asked["redo_unrecoverable"]
        )
        report = stack_heal.heal_holes(settings.load(), wish, say=logging.getLogger(__name__).info)
        logging.getLogger(__name__).info("%s", report)
        return report.as_dict()

    heal()


heal_gaps()
