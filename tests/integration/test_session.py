"""What a Spark session of ours starts: workers without zip files on their path."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession


def test_a_python_worker_has_no_zip_on_its_path(lake: SparkSession) -> None:
    # within the test, so that it is sent to the worker by value: this file is no module there
    def path(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import sys

        for _ in batches:
            yield pa.record_batch({"entry": pa.array(sys.path, pa.string())})

    entries = [row.entry for row in lake.range(1, numPartitions=1).mapInArrow(path, "entry string").collect()]
    assert [entry for entry in entries if entry.endswith(".zip")] == []
    assert any(entry.endswith("site-packages") for entry in entries)
