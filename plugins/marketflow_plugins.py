"""What Airflow has to know of the project by name. It loads every file of this folder and registers what it finds."""

from __future__ import annotations

from typing import ClassVar

from airflow.plugins_manager import AirflowPlugin
from airflow.task.priority_strategy import PriorityWeightStrategy

from marketflow_airflow.priority import ScheduleBeforeBackfill


class MarketflowPlugin(AirflowPlugin):
    """The order in which tasks that wait for a slot get it."""

    name = "marketflow"
    priority_weight_strategies: ClassVar[list[type[PriorityWeightStrategy]]] = [ScheduleBeforeBackfill]
