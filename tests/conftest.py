"""Markers come from folders: tests/<level>/ is marked <level>, so that no test can forget its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# a test's Spark lives for minutes and runs each plan once: its optimizing compiler would take a whole core for nothing
os.environ.setdefault("MARKETFLOW_SPARK_DRIVER_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")

LEVELS = ("unit", "spark", "dags", "integration", "e2e", "faults")
TESTS_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the folder it lies in; a test outside the ladder is an error."""
    for item in items:
        level = item.path.relative_to(TESTS_FOLDER).parts[0]
        if level not in LEVELS:
            raise pytest.UsageError(f"{item.path} lies in none of {', '.join(LEVELS)}")
        item.add_marker(level)
