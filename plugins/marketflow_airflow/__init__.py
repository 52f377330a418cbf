"""What speaks Airflow: hooks, operators, sensors, triggers, notifiers, and the one resolver of a run's window.

Nothing here computes market data; every task calls the library or starts a job of spark_jobs/.
"""
