"""Real servers for the end-to-end tests, and the Dags run on them as a person would with `airflow dags test`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings
from marketflow.stack import dag as one_dag
from marketflow.stack.servers import temporary_stack

RUNNER = Path(__file__).with_name("run_dags.py")
REWRITER = Path(__file__).with_name("rewrite_hours.py")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """PostgreSQL, Kafka and S3 that both datasets of these tests share, as they do on one machine."""
    home: Path = tmp_path_factory.mktemp("home")
    with temporary_stack(home, dataset="sim") as settings:
        yield settings


def run_dags(settings: Settings, *wishes: str) -> list[str]:
    """Run `DAG@DATE` wishes in turn; the states that were reached, all success or the test fails with the log's end."""
    variables = one_dag.environment(settings)
    one_dag.migrate(settings, variables)
    done = subprocess.run(
        [sys.executable, str(RUNNER), *wishes], env=variables, capture_output=True, text=True, check=False, timeout=1400
    )
    states = [line for line in done.stdout.splitlines() if line.startswith("DAG ")]
    assert done.returncode == 0, f"{states}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return states


def rewrite_hours(settings: Settings, tables: Iterable[str], hours: Iterable[str]) -> None:
    """Rewrite these hours of these gold tables, without a Dag: a session of Spark costs more than all of them."""
    done = subprocess.run(
        [sys.executable, str(REWRITER), ",".join(tables), ",".join(hours)],
        env=embedded_environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def verify(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`marketflow verify` in a process of its own, as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "marketflow.verify", *arguments],
        env=embedded_environment(settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
