"""`make dag`: one run that no live scheduler hears of, and sentences where it cannot be."""

from __future__ import annotations

import os
import subprocess

import psycopg
import pytest

from marketflow.paths import PROJECT_FOLDER
from marketflow.stack.servers import free_ports
from tests.integration.airflow_stage import postgres_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with postgres_server(tmp_path_factory.mktemp("home")) as running:
        yield running


def make_dag(server, *arguments, port=None):
    settings = server.settings
    environment = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    environment |= {
        "MARKETFLOW_HOME": str(settings.home),
        "MARKETFLOW_POSTGRES_PORT": str(port or settings.postgres_port),
    }
    command = [str(PROJECT_FOLDER / "scripts" / "dag"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("", ""), "make dag: say which Dag: make dag DAG=gold_bars DATE=2026-11-20T05:00"),
        (("gold_bars", "yesterday"), "make dag: DATE=yesterday is no time"),
    ],
)
def test_a_wish_that_means_nothing_is_refused_in_a_sentence(server, arguments, sentence):
    done = make_dag(server, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(sentence)
    assert "Traceback" not in done.stderr


def test_without_a_stack_it_says_how_to_start_one(server):
    done = make_dag(server, "gold_bars", "", port=free_ports(1)[0])
    assert done.returncode == 1
    assert "the stack is down" in done.stderr
    assert "run `make up` first" in done.stderr


def test_a_dag_runs_on_the_stacks_connections_and_leaves_its_metadata_alone(server):
    done = make_dag(server, "producers", "")
    # the services' connection is the stack's: it is asked, and there is no supervisord in this home
    assert done.returncode != 0
    assert "the stack is down: run `make up` (no supervisord behind" in done.stdout + done.stderr
    assert (server.settings.home / "airflow-dev" / "airflow.db").exists()
    with psycopg.connect(server.settings.dsn("airflow", "airflow")) as connection:
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)


def test_a_dag_that_is_not_there_is_answered_with_those_that_are(server):
    done = make_dag(server, "gold_bar", "2026-11-20T05:00")
    assert done.returncode == 2
    assert (
        "make dag: there is no Dag 'gold_bar'; there are advance, backfill_history, crawl_catalog, gold_bars"
        in done.stderr
    )


def scripts_airflow(server, *arguments):
    environment = {name: value for name, value in os.environ.items() if "AIRFLOW" not in name}
    environment |= {
        "MARKETFLOW_HOME": str(server.settings.home),
        "MARKETFLOW_POSTGRES_PORT": str(server.settings.postgres_port),
    }
    command = [str(PROJECT_FOLDER / "scripts" / "airflow"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_scripts_airflow_is_the_command_of_the_running_airflow(server):
    """A value that only this home's environment sets, by Airflow's own word."""
    done = scripts_airflow(server, "config", "get-value", "workers", "execution_api_retries")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "15"


def test_dags_test_is_not_seen_by_the_running_scheduler(server):
    """In the running Airflow's database its scheduler would start the test's tasks too."""
    done = scripts_airflow(server, "dags", "test", "producers", "2026-11-20T05:00:00+00:00")
    assert "the stack is down: run `make up` (no supervisord behind" in done.stdout + done.stderr
    with psycopg.connect(server.settings.dsn("airflow", "airflow")) as connection:
        assert connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone() == (0,)
