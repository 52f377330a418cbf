"""The task that says what a table gained, fails where its books do not balance, and emits the table's asset."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Asset, task
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.freshness import CONNECTION_ID
from marketflow_airflow.notify import KnownFailure

_log = logging.getLogger(__name__)

_UNBALANCED = """
select snapshot_id, messages, ignored, parsed, unparseable, items, accepted, duplicate, rejected
from ops.silver_accounting
where table_name = %s and committed_at > now() - interval '1 day'
and (ignored + parsed + unparseable <> messages or accepted + duplicate + rejected <> items)
"""
_NEWEST = """
select mark.complete_through, mark.snapshot_id, mark.newest_event_at, mark.updated_at,
  coalesce((select sum(accepted) from ops.silver_accounting a
            where a.table_name = mark.table_name and a.committed_at > now() - interval '5 minutes'), 0)
from ops.layer_freshness mark where mark.table_name = %s
"""


_STEPS = {"gold.product_day": timedelta(days=1)}


def work_of(table: str, summary: Any) -> dict[str, Any]:
    """What the job before did to a table, from its summary: rows written, and the span of the hours they are of.

    `rows` of silver are those that were new. A job that was killed wrote no summary, and says nothing.
    """
    lines = [line for line in summary or () if line.get("table") == table and line.get("status", "ok") == "ok"]
    if not lines:
        return {}
    facts: dict[str, Any] = {"rows": sum(line["rows"] for line in lines)}
    hours = sorted({datetime.fromisoformat(hour) for line in lines for hour in line["hours"]})
    if hours:
        end = hours[-1] + _STEPS.get(table, timedelta(hours=1))
        facts |= {"interval_start": hours[0].isoformat(), "interval_end": end.isoformat(), "hours": len(hours)}
    return facts


def not_moved(table: str, work: dict[str, Any], complete_through: datetime) -> AirflowFailException:
    """Why a table that the job before should have brought up to date fails its account.

    Where the job itself says that it did not do the table, or died before it said anything, its own task has told, once
    for all tables: a KnownFailure, of which nobody is told again.
    """
    kind = AirflowFailException if work else KnownFailure
    return kind(
        f"{table} was not brought up to date by this run, and is complete through {complete_through} only: "
        "the log of the task before this one says why"
    )


def account(table: str, asset: Asset, sources: Sequence[Asset], *, alone: bool = False) -> Any:
    """The account task of one table, which is made from `sources`.

    `alone`: after work on several tables, judged by what became of its own.
    Such a task runs also where the work failed, because a source that failed does not make another's news false. It
    fails itself where its own table was not brought up to date, so that the run fails too.
    """
    named = _account.override(
        task_id=f"account_{table.replace('.', '_')}",
        inlets=list(sources),
        outlets=[asset],
        trigger_rule="all_done" if alone else "all_success",
    )
    return named(table, must_have_moved=alone)


# one: PostgreSQL that restarts; what the books say they would say again
@task(retries=1)
def _account(
    table: str, *, must_have_moved: bool, outlet_events: Any = None, ti: Any = None, dag_run: Any = None
) -> dict[str, Any]:
    """Check the table's balance of the last day and put what is known into the asset's event."""
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    hook = PostgresHook(postgres_conn_id=CONNECTION_ID)
    unbalanced = hook.get_records(_UNBALANCED, parameters=(table,))
    if unbalanced:
        raise AirflowFailException(f"{table}: commits whose books do not balance: {unbalanced[:5]}")
    row = hook.get_first(_NEWEST, parameters=(table,))
    if row is None:
        raise AirflowFailException(f"{table} has never been written: is the stream running? `marketflow status`")
    complete_through, snapshot_id, newest_event_at, updated_at, accepted = row
    work: dict[str, Any] = {}
    for before in ti.task.upstream_task_ids:
        work |= work_of(table, ti.xcom_pull(task_ids=before))
    if must_have_moved and updated_at < dag_run.start_date:
        raise not_moved(table, work, complete_through)
    facts = {
        "complete_through": complete_through.isoformat(),
        "snapshot_id": snapshot_id,
        "newest_event_at": newest_event_at.isoformat() if newest_event_at else None,
        "accepted_last_5_min": int(accepted),
    }
    facts |= work
    for asset in ti.task.outlets:
        outlet_events[asset].extra = facts
    _log.info("%s: %s", table, facts)
    return facts
