"""Rows of one snapshot of a lake table, read by a worker without the JVM.

What a kernel takes is Arrow. Through the JVM every Decimal(38,18) becomes an object, is shuffled and sorted, and
becomes Arrow again: reading and handing over took as long as 118 features (docs/decisions/0013-feature-workers.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import polars as pl
from pyspark.sql import SparkSession

from marketflow.contracts.columns import Table
from marketflow.features import frames
from marketflow.lake.file_options import file_options
from marketflow.lake.session import table_name
from marketflow.lake.silver_snapshots import java_table
from marketflow.settings import Settings


@dataclass(frozen=True, slots=True)
class SnapshotRows:
    """Where a table's rows are and how to get there; travels to the workers, so it holds texts alone.

    `snapshot_id` is None for a table that was never written: it has no rows.
    """

    table: Table
    location: str
    snapshot_id: int | None
    options: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, spark: SparkSession, settings: Settings, table: Table, snapshot_id: int | None) -> SnapshotRows:
        """The table as of this snapshot; the metadata file that is current now knows it."""
        java = java_table(spark, table_name(settings, table))
        location = str(java.operations().current().metadataFileLocation())
        return cls(table, location, snapshot_id, tuple(file_options(settings).items()))

    def between(
        self, columns: tuple[str, ...], venue: str, product_id: str, first: datetime, last: datetime
    ) -> pl.DataFrame:
        """These columns of one product at one venue with the hour column's time in [first, last], in no order."""
        from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThanOrEqual
        from pyiceberg.table import StaticTable

        assert self.table.hour_column
        if self.snapshot_id is None:
            return frames.empty(self.table).select(columns)
        time = self.table.hour_column
        asked = And(
            And(EqualTo("venue", venue), EqualTo("product_id", product_id)),
            And(GreaterThanOrEqual(time, first.isoformat()), LessThanOrEqual(time, last.isoformat())),
        )
        opened = StaticTable.from_metadata(self.location, properties=dict(self.options))
        scan = opened.scan(row_filter=asked, selected_fields=columns, snapshot_id=self.snapshot_id)
        return pl.DataFrame(pl.from_arrow(scan.to_arrow())).select(columns)
