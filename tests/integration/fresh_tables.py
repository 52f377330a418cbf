"""Empty tables without history, made anew only where a test before has written to them."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.lake import silver_snapshots
from marketflow.lake.session import table_name
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings


def empty(spark: SparkSession, settings: Settings, tables: Iterable[Table]) -> None:
    """Drop and make those of the tables that have a snapshot, or that are not there."""
    missing = []
    for table in tables:
        name = table_name(settings, table)
        if spark.catalog.tableExists(name):
            if silver_snapshots.java_table(spark, name).currentSnapshot() is None:
                continue
            spark.sql(f"drop table {name} purge")
        missing.append(table)
    apply_contracts(spark, settings, missing)
