"""The independent judge: is every fact of the source in every layer, once, and right?

Imports no parser, kernel, reader or writer of the project. It reads the simulator's truth, the bytes in bronze, the
lake's files with DuckDB, Postgres with psycopg and Kafka's offsets, and recomputes what each layer must hold from the
layer before it with its own code. The statements are in include/sql/verify/.
"""

from marketflow.verify.judge import run
from marketflow.verify.report import Comparison, Problem, Report

__all__ = ["Comparison", "Problem", "Report", "run"]
