"""Whether the data is good and there in time: the checks that are asked on a schedule, and the causes of lateness.

What SQL in PostgreSQL can tell is in include/sql/postgres/quality; what only the lake or the judge can tell is here.
No Airflow.
"""
