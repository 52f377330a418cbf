"""Markers come from folders: tests/<level>/ is marked <level>, so that no test can forget its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# These tests start hundreds of Pythons, Airflow and pandas in many of them. Where an environment forbids to keep compiled
# modules (containers do), each would compile them anew, three to five seconds of a core every time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("marketflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("marketflow")

# A test's Spark lives for minutes and runs each plan once: compilers, Java's optimizing one and Spark's own, would take
# a whole core for nothing. The end-to-end tests and the kills run it as it is shipped.
os.environ["MARKETFLOW_SPARK_DRIVER_JAVA_OPTIONS"] = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.sql.codegen.wholeStage=false "
    "-Dspark.sql.codegen.factoryMode=NO_CODEGEN -Dspark.sql.adaptive.enabled=false"
)


@pytest.fixture(scope="module", autouse=True)
def _spark_as_shipped(request: pytest.FixtureRequest) -> Iterator[None]:
    if {"e2e", "faults"}.isdisjoint(request.path.parts):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MARKETFLOW_SPARK_DRIVER_JAVA_OPTIONS")
        yield


LEVELS = ("unit", "spark", "dags", "integration", "e2e", "faults")
TESTS_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the folder it lies in; a test outside the ladder is an error."""
    for item in items:
        level = item.path.relative_to(TESTS_FOLDER).parts[0]
        if level not in LEVELS:
            raise pytest.UsageError(f"{item.path} lies in none of {', '.join(LEVELS)}")
        item.add_marker(level)
