"""Where Airflow finds the project's plugins: it looks into the files of this folder, not into packages."""

from marketflow_airflow.priority import PriorityPlugin

__all__ = ["PriorityPlugin"]
