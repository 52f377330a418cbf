"""Dags are run by Airflow's own loop, each test on a metadata database of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest

from tests import airflow_home

if TYPE_CHECKING:
    from airflow.sdk import DAG


@pytest.fixture(scope="session")
def dags() -> Mapping[str, DAG]:
    """Every Dag of the project, by id; one that does not import fails here with its own words."""
    from airflow.dag_processing.dagbag import DagBag

    airflow_home.migrate()
    bag = DagBag(str(airflow_home.DAGS_FOLDER), bundle_name="dags-folder")
    assert bag.import_errors == {}
    return bag.dags


@pytest.fixture
def metadata_database() -> None:
    """A migrated database that no other test has written to."""
    airflow_home.fresh_database()
