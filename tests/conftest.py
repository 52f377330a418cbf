"""Markers come from folders: tests/<level>/ is marked <level>, so that no test can forget its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.spark_options import SHORT_LIVED_SPARK

# These tests start hundreds of Pythons, Airflow and pandas in many of them. Where an environment forbids to keep
# compiled modules (containers do), each would compile them anew, three to five seconds of a core every time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile("marketflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("marketflow")

# The kills, and an end-to-end test that says SPARK_AS_SHIPPED, run it as it is shipped.
os.environ["MARKETFLOW_SPARK_DRIVER_JAVA_OPTIONS"] = SHORT_LIVED_SPARK


@pytest.fixture(scope="module", autouse=True)
def _spark_as_shipped(request: pytest.FixtureRequest) -> Iterator[None]:
    if "faults" not in request.path.parts and not getattr(request.module, "SPARK_AS_SHIPPED", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MARKETFLOW_SPARK_DRIVER_JAVA_OPTIONS")
        yield


LEVELS = ("unit", "spark", "dags", "integration", "e2e", "faults")
TESTS_FOLDER = Path(__file__).parent


# The files of minutes, about the longest first, so that no worker begins one when the others are about to end. A file
# that is not named comes later, in the order of its name; --durations=0 says which has grown.
LONGEST_FIRST = (
    "e2e/test_recorded_morning.py",
    "e2e/test_every_venue.py",
    "e2e/test_raw_round_trip.py",
    "integration/test_silver_advance.py",
    "e2e/test_open_hour.py",
    "integration/test_backfill.py",
    "integration/test_verify.py",
    "integration/test_airflow_scheduler.py",
    "integration/test_quarantine.py",
    "integration/test_silver_close.py",
    "integration/test_stream_reset.py",
    "integration/test_crawl_lake.py",
    "integration/test_airflow_lake.py",
    "integration/test_maintenance.py",
    "integration/test_compaction.py",
    "integration/test_gold_bars.py",
    "integration/test_silver_candles.py",
    "integration/test_airflow_make_dag.py",
    "integration/test_airflow_production.py",
    "integration/test_producer_polls.py",
    "integration/test_producer_coinbase.py",
    "integration/test_heal.py",
    "integration/test_airflow_services.py",
    "integration/test_lifecycle_rounds.py",
    "integration/test_lifecycle_machine.py",
    "integration/test_services_supervisor.py",
    "unit/venues/test_scaffold.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the folder it lies in (a test outside the ladder is an error), and put long files first."""
    for item in items:
        level = item.path.relative_to(TESTS_FOLDER).parts[0]
        if level not in LEVELS:
            raise pytest.UsageError(f"{item.path} lies in none of {', '.join(LEVELS)}")
        item.add_marker(level)
    places = {TESTS_FOLDER / name: place for place, name in enumerate(LONGEST_FIRST)}
    if gone := [str(path) for path in places if not path.exists()]:
        raise pytest.UsageError(f"LONGEST_FIRST names what is not there: {', '.join(gone)}")
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a parse of all Dags took, also where a worker of pytest-xdist measured it: the report carries it here."""
    for report in (each for reports in terminalreporter.stats.values() for each in reports):
        if getattr(report, "when", None) == "call" and (said := dict(report.user_properties).get("parse")):
            terminalreporter.write_line(str(said))
