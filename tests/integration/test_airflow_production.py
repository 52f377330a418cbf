"""A production Airflow for real: FAB's roles over HTTP; a run whose log, connections, lineage and metrics arrive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from marketflow.settings import Settings
from marketflow.stack import airflow, s3
from marketflow.warehouse import freshness
from marketflow.warehouse.connection import connect
from tests.integration.airflow_stage import eventually
from tests.integration.production_stage import DAG_ID, Production, production

RUNS = f"/api/v2/dags/{DAG_ID}/dagRuns"


@pytest.fixture(scope="module")
def world(embedded: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    """One database, one API server and one scheduler for all of it: they cost more than what is looked at."""
    with production(embedded, tmp_path_factory.mktemp("production")) as built:
        airflow.migrate(built.settings)
        api_server = built.start("api-server")
        built.start("scheduler", "--skip-serve-logs")
        built.command("dags", "reserialize")
        log = built.settings.home / "api-server.log"
        eventually(lambda: built.answers() or api_server.poll() is not None, f"the API server, see {log}", 180)
        assert api_server.poll() is None, log.read_text()[-3000:]
        yield built


@pytest.fixture(scope="module")
def tokens(world: Production) -> dict[str, str]:
    return {name: world.token(name) for name in ("admin", "op", "viewer")}


@pytest.fixture(scope="module")
def run(world: Production, tokens: dict[str, str]) -> dict[str, Any]:
    """A run that Op started over HTTP and the scheduler brought to its end."""
    with connect(world.settings, autocommit=True) as connection:
        freshness.mark(connection, "silver.trades", datetime.now(UTC) + timedelta(days=1))
    status, started = world.ask("POST", RUNS, tokens["op"], {"logical_date": None})
    assert status == 200

    def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = world.ask("GET", f"{RUNS}/{started['dag_run_id']}", tokens["viewer"])[1]
        return found if found["state"] in ("success", "failed") else None

    return eventually(ended, "the run to end", 180)


def logged(world: Production, token: str, run: dict[str, Any], task: str) -> str:
    """A task's log as the API server tells it, once the worker has sent it to the bucket."""
    path = f"{RUNS}/{run['dag_run_id']}/taskInstances/{task}/logs/1"

    def told() -> str | None:
        found = json.dumps(world.ask("GET", path, token)[1])
        return found if "s3://" in found else None

    found: str = eventually(told, f"the log of {task}")
    return found


def test_nobody_without_a_name_and_its_password_gets_in(world: Production) -> None:
    assert world.ask("GET", "/api/v2/dags")[0] == 401
    assert world.ask("GET", "/page/prices")[0] == 401
    assert world.ask("GET", "/api/v2/dags", "no.such.token")[0] in (401, 403)
    assert world.ask("POST", "/auth/token", body={"username": "admin", "password": "wrong"})[0] == 401


def test_viewer_reads_and_op_acts_and_admin_sees_users(world: Production, tokens: dict[str, str]) -> None:
    def statuses(method: str, path: str, body: Any = None) -> dict[str, int]:
        return {name: world.ask(method, path, token, body)[0] for name, token in tokens.items()}

    assert statuses("GET", "/api/v2/dags") == {"admin": 200, "op": 200, "viewer": 200}
    assert statuses("GET", f"{RUNS}") == {"admin": 200, "op": 200, "viewer": 200}
    assert statuses("GET", "/api/v2/connections") == {"admin": 200, "op": 200, "viewer": 403}
    assert statuses("GET", "/auth/fab/v1/users") == {"admin": 200, "op": 403, "viewer": 403}
    assert world.ask("POST", RUNS, tokens["viewer"], {"logical_date": None})[0] == 403
    for path, body in (
        (f"/api/v2/dags/{DAG_ID}/clearTaskInstances", {"dry_run": True}),
        ("/api/v2/connections", {"connection_id": "elsewhere", "conn_type": "http"}),
        ("/api/v2/variables", {"key": "colour", "value": "blue"}),
        ("/api/v2/pools", {"name": "narrow", "slots": 1, "include_deferred": False}),
    ):
        assert world.ask("POST", path, tokens["viewer"], body)[0] == 403, path
        assert world.ask("POST", path, tokens["op"], body)[0] in (200, 201), path
    assert world.ask("DELETE", "/api/v2/connections/elsewhere", tokens["op"])[0] == 204
    assert [one["dag_id"] for one in world.ask("GET", "/api/v2/dags", tokens["viewer"])[1]["dags"]] == [DAG_ID]
    person = {"username": "new", "first_name": "A", "last_name": "Person", "email": "new@localhost"}
    person |= {"roles": [{"name": "Viewer"}], "password": "only for this test"}
    assert world.ask("POST", "/auth/fab/v1/users", tokens["op"], person)[0] == 403
    assert world.ask("POST", "/auth/fab/v1/users", tokens["admin"], person)[0] == 200
    _, found = world.ask("GET", "/auth/fab/v1/users", tokens["admin"])
    roles = {user["username"]: [role["name"] for role in user["roles"]] for user in found["users"]}
    assert roles == {"admin": ["Admin"], "op": ["Op"], "viewer": ["Viewer"], "new": ["Viewer"]}


def test_a_plugins_page_is_read_by_viewer_and_written_to_by_who_may_trigger(
    world: Production, tokens: dict[str, str]
) -> None:
    assert [world.ask("GET", "/page/prices", token)[0] for token in tokens.values()] == [200, 200, 200]
    posted = {name: world.ask("POST", "/page/prices", token, {})[0] for name, token in tokens.items()}
    assert posted == {"admin": 200, "op": 200, "viewer": 403}


def test_a_tasks_log_is_in_the_bucket_and_is_read_from_there(
    world: Production, tokens: dict[str, str], run: dict[str, Any]
) -> None:
    folder = f"airflow-logs/dag_id={DAG_ID}/run_id={run['dag_run_id']}/task_id=say"
    bucket, client = world.settings.lake_bucket, s3.client(world.settings)
    # the worker sends it when the task has ended, and the run may end before
    listed = eventually(
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=folder).get("Contents"), "the log in the bucket"
    )
    (key,) = [item["Key"] for item in listed]
    assert b"connections of the environment" in client.get_object(Bucket=bucket, Key=key)["Body"].read()
    told = logged(world, tokens["viewer"], run, "say")
    assert f"s3://{bucket}/{key}" in told
    assert "connections of the environment" in told


def test_connections_come_from_the_secrets_backend_and_no_environment_has_them(
    world: Production, tokens: dict[str, str], run: dict[str, Any]
) -> None:
    """The sensor asked PostgreSQL by marketflow_pg, and the log went to the bucket by lake_aws."""
    assert run["state"] == "success"
    assert not [name for name in world.environment if name.startswith("AIRFLOW_CONN_")]
    said = {task: logged(world, tokens["op"], run, task) for task in ("fresh", "say")}
    assert "silver.trades complete through" in said["fresh"]
    assert "connections of the environment: []" in said["say"]
    assert world.ask("GET", "/api/v2/connections", tokens["admin"])[1]["total_entries"] == 0


def test_the_pages_commands_make_a_user_without_asking_and_find_a_connection(
    world: Production, tokens: dict[str, str]
) -> None:
    person = ("--username", "guest", "--firstname", "A", "--lastname", "Guest", "--email", "guest@localhost")
    commands = (
        ("users", "create", "--role", "Viewer", *person, "--use-random-password"),
        ("connections", "get", "marketflow_pg", "--output", "json"),
    )
    with ThreadPoolExecutor() as both:
        _, said = both.map(lambda arguments: world.command(*arguments), commands)
    assert json.loads(said[said.index("[") :])[0]["login"] == "marketflow_writer"
    _, found = world.ask("GET", "/auth/fab/v1/users/guest", tokens["admin"])
    assert [role["name"] for role in found["roles"]] == ["Viewer"]


def test_lineage_says_what_began_and_what_ended(world: Production, run: dict[str, Any]) -> None:
    def events() -> list[dict[str, Any]]:
        return [json.loads(line) for line in world.lineage.read_text().splitlines()]

    wanted = {(kind, job) for kind in ("START", "COMPLETE") for job in (DAG_ID, f"{DAG_ID}.fresh", f"{DAG_ID}.say")}
    told = eventually(
        lambda: {(one["eventType"], one["job"]["name"]) for one in events()} >= wanted and events(), "the events", 60
    )
    assert {one["job"]["namespace"] for one in told} == {f"marketflow-{world.settings.dataset}"}
    (ended,) = [one for one in told if (one["eventType"], one["job"]["name"]) == ("COMPLETE", f"{DAG_ID}.say")]
    assert "marketflow://test/seen" in json.dumps(ended["run"]["facets"]["airflow"])


def test_metrics_of_scheduler_and_task_arrive_by_statsd(world: Production, run: dict[str, Any]) -> None:
    wanted = {
        "airflow.scheduler_heartbeat",
        f"airflow.dagrun.duration.success.{DAG_ID}",
        f"airflow.ti.finish.{DAG_ID}.say.success",
    }
    eventually(lambda: wanted <= world.metrics.names, f"{wanted} among {sorted(world.metrics.names)}", 60)
