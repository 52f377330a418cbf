"""What the schedule owes comes before what a backfill catches up with, wherever both wait for a slot."""

from __future__ import annotations

from typing import Any

from airflow.task.priority_strategy import PriorityWeightStrategy

BACKFILL = 1
EVERYTHING_ELSE = 10
SERVICES = 20
"""Of the Dags on which the services depend: stream_reset is for a stream that cannot go on, the rounds of the other two
are promised within a minute."""
SERVICE_DAGS = frozenset({"stream_reset", "producers", "market_stream"})


class ScheduleBeforeBackfill(PriorityWeightStrategy):
    """Weight 1 for tasks of backfilled runs, 10 for others, 20 for the services' Dags; a Dag's own order is nothing.

    Known by the run's id, which Airflow begins with its type: the instance has no run yet when its weight is asked for.
    """

    def __repr__(self) -> str:
        """The same each time: it stands in what Airflow keeps of a Dag, of which a difference is a new version."""
        return f"{type(self).__name__}()"

    def get_weight(self, ti: Any) -> int:
        """The weight of a task instance."""
        if ti.dag_id in SERVICE_DAGS:
            return SERVICES
        return BACKFILL if ti.run_id and ti.run_id.startswith("backfill__") else EVERYTHING_ELSE
