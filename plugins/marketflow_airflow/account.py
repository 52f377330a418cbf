"""The task that says what a table gained, fails where its books do not balance, and emits the table's asset."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, task
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.freshness import CONNECTION_ID

_UNBALANCED = """
select snapshot_id, messages, ignored, parsed, unparseable, items, accepted, duplicate, rejected
from ops.silver_accounting
where table_name = %s and committed_at > now() - interval '1 day'
and (ignored + parsed + unparseable <> messages or accepted + duplicate + rejected <> items)
"""
_NEWEST = """
select mark.complete_through, mark.snapshot_id, mark.newest_event_at,
  coalesce((select sum(accepted) from ops.silver_accounting a
            where a.table_name = mark.table_name and a.committed_at > now() - interval '5 minutes'), 0)
from ops.layer_freshness mark where mark.table_name = %s
"""


@task(trigger_rule="all_done")
def account(table: str, asset: Asset, *, outlet_events: Any = None, ti: Any = None) -> dict[str, Any]:
    """Check the table's balance of the last day and put what is known into the asset's event.

    Runs also where the Spark task failed, because a failed source does not make another's news false.
    """
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    hook = PostgresHook(postgres_conn_id=CONNECTION_ID)
    unbalanced = hook.get_records(_UNBALANCED, parameters=(table,))
    if unbalanced:
        raise AirflowFailException(f"{table}: commits whose books do not balance: {unbalanced[:5]}")
    row = hook.get_first(_NEWEST, parameters=(table,))
    if row is None:
        raise AirflowFailException(f"{table} has never been written: is the stream running? `marketflow status`")
    complete_through, snapshot_id, newest_event_at, accepted = row
    facts = {
        "complete_through": complete_through.isoformat(),
        "snapshot_id": snapshot_id,
        "newest_event_at": newest_event_at.isoformat() if newest_event_at else None,
        "accepted_last_5_min": int(accepted),
    }
    outlet_events[asset].extra = facts
    ti.log.info("%s: %s", table, facts)
    return facts
