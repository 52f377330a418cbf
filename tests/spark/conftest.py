"""A Spark without a lake. The JVM outlives its sessions, so it is started as the lake's own would be."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from marketflow.paths import JARS_FOLDER
from marketflow.settings import load


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    """The session that this process has already, or one of its own until the file's end."""
    running = SparkSession.getActiveSession()
    if running is not None:
        yield running.newSession()
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    options = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.extraClassPath": str(JARS_FOLDER / "spark" / "*"),
        "spark.driver.extraJavaOptions": load().spark_driver_java_options,
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()
