"""Waiting until a layer is complete through a moment, without holding a slot.

Every sensor reads one view, ops.layer_freshness. complete_through is processing time, so a quiet product or a stopped
source never hangs a wait, and an hour long past is fresh at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseHook, BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from marketflow_airflow.interval import PARTITION, resolve

CONNECTION_ID = "marketflow_pg"
# null while one of the tables has no mark yet, so that a layer never written is not called fresh
QUERY = """
select case when count(*) = cardinality($1::text[]) then min(complete_through) end
from ops.layer_freshness where table_name = any($1::text[])
"""


class FreshnessTrigger(BaseTrigger):
    """Fires when every table's complete_through has reached `until`. One short connection per poll."""

    def __init__(self, *, tables: Sequence[str], until: str, poll_s: float = 5.0) -> None:
        """`tables` as `silver.trades`; `until` in ISO 8601 with zone; `poll_s` seconds between looks."""
        super().__init__()
        self.tables, self.until, self.poll_s = list(tables), until, poll_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How the triggerer makes it again."""
        arguments = {"tables": self.tables, "until": self.until, "poll_s": self.poll_s}
        return "marketflow_airflow.freshness.FreshnessTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until fresh. A database that is away is waited for: the sensor's timeout ends a hopeless wait."""
        import asyncpg

        connection = await BaseHook.aget_connection(CONNECTION_ID)
        wanted = datetime.fromisoformat(self.until)
        while True:
            try:
                database = await asyncpg.connect(
                    host=connection.host,
                    port=connection.port,
                    user=connection.login,
                    password=connection.password,
                    database=connection.schema,
                    timeout=5,
                )
                try:
                    reached = await database.fetchval(QUERY, self.tables, timeout=5)
                finally:
                    await database.close()
            except (OSError, asyncpg.PostgresError, TimeoutError) as error:
                self.log.warning("PostgreSQL is away, looking again in %s s: %r", self.poll_s, error)
                reached = None
            if reached and reached >= wanted:
                yield TriggerEvent({"status": "fresh", "complete_through": reached.isoformat()})
                return
            self.log.info("%s complete through %s, waiting for %s", ", ".join(self.tables), reached, self.until)
            await asyncio.sleep(self.poll_s)


class FreshnessSensor(BaseSensorOperator):
    """Succeeds once every table is complete through the end of the run's window plus `beyond`."""

    template_fields: Sequence[str] = ("tables",)
    ui_color = "#dbeafe"

    def __init__(
        self,
        *,
        tables: Sequence[str],
        grain: str = "hour",
        beyond: timedelta = timedelta(0),
        known: Sequence[str] = (PARTITION,),
        **kwargs: Any,
    ) -> None:
        """`tables` as `silver.trades`; `grain` hour or day; `beyond` time after the window's end that must be in.

        `known` are the keys of the Dag's form.
        """
        kwargs.setdefault("poke_interval", 5)
        super().__init__(**kwargs)
        self.tables, self.grain, self.beyond, self.known = list(tables), grain, beyond, list(known)

    def _until(self, context: Mapping[str, Any]) -> datetime:
        return resolve(context, self.grain, known=self.known).end + self.beyond

    def poke(self, context: Mapping[str, Any]) -> bool:
        """One look, in the worker."""
        reached = self._reached()
        until = self._until(context)
        self.log.info("%s complete through %s, wanted %s", ", ".join(self.tables), reached, until)
        return reached is not None and reached >= until

    def _reached(self) -> datetime | None:
        from airflow.providers.postgres.hooks.postgres import PostgresHook

        query = QUERY.replace("$1", "%(tables)s")
        row = PostgresHook(postgres_conn_id=CONNECTION_ID).get_first(query, parameters={"tables": self.tables})
        found: datetime | None = row[0] if row else None
        return found.astimezone(UTC) if found else None

    def execute(self, context: Mapping[str, Any]) -> Any:
        """Succeed at once where it is fresh already, else hand over to the triggerer."""
        if self.poke(context):
            return {"status": "fresh"}
        self.defer(
            trigger=FreshnessTrigger(
                tables=self.tables, until=self._until(context).isoformat(), poll_s=float(self.poke_interval)
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def execute_complete(self, context: Mapping[str, Any], event: dict[str, Any] | None = None) -> dict[str, Any]:
        """The trigger's word."""
        del context
        if not event or event.get("status") != "fresh":
            raise AirflowFailException(f"{', '.join(self.tables)}: the wait ended without freshness: {event}")
        return event
