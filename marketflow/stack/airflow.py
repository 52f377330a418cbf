"""The embedded Airflow: its environment, its users, its metadata database. Its four parts are services.

`environment` is what every `airflow` command of this home runs with; nothing is written to a configuration file,
so there is one place that says how Airflow is set up here. Figures and reasons: docs/decisions/0002-airflow.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from marketflow.errors import SetupError
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import Settings
from marketflow.stack import airflow_production
from marketflow.stack.secrets import write_private

# One Spark application at a time on one machine: `airflow backfill` ignores a Dag's max_active_runs, a pool it obeys.
POOLS = {
    "spark": {"slots": 1, "description": "Spark applications; one at a time on one machine", "include_deferred": False}
}


def home(settings: Settings) -> Path:
    """AIRFLOW_HOME."""
    return settings.home / "airflow"


def program() -> str:
    """The `airflow` command of this environment."""
    return str(Path(sys.executable).parent / "airflow")


def base_url(settings: Settings) -> str:
    """Where a browser finds Airflow."""
    return f"http://{settings.host}:{settings.airflow_port}"


def connections(settings: Settings) -> dict[str, str]:
    """Airflow connections, as AIRFLOW_CONN_* variables."""
    return {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in named_connections(settings).items()}


def named_connections(settings: Settings) -> dict[str, dict[str, Any]]:
    """Every connection that the Dags use, by its id."""
    postgres = {
        "conn_type": "postgres",
        "host": settings.postgres_host or settings.host,
        "port": settings.postgres_port,
        "login": "marketflow_writer",
        "password": settings.secret("postgres_marketflow_writer"),
        "schema": settings.postgres_database,
    }
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": settings.bootstrap_servers, "group.id": "airflow"}}
    lake_aws = {
        "conn_type": "aws",
        "login": settings.secret("s3_access_key"),
        "password": settings.secret("s3_secret_key"),
        "extra": {
            # whatever has no address of its own below ends here, never at AWS
            "endpoint_url": settings.s3_endpoint,
            "region_name": settings.aws_region,
            "service_config": {"glue": {"endpoint_url": settings.glue_endpoint}},
            "config_kwargs": {
                "proxies": {},
                "s3": {"addressing_style": "path"},
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        },
    }
    services = {"conn_type": "generic", "extra": {"home": str(settings.home)}}
    return {"marketflow_pg": postgres, "marketflow_kafka": kafka, "lake_aws": lake_aws, "services": services}


def environment(settings: Settings) -> dict[str, str]:
    """Every AIRFLOW__* variable of this home; secrets included, so never print it."""
    password = quote(settings.secret("postgres_airflow"))
    metadata = f"airflow:{password}@{settings.postgres_host or settings.host}:{settings.postgres_port}/airflow"
    options = {
        ("core", "executor"): "LocalExecutor",
        ("core", "parallelism"): "4",
        ("core", "max_active_tasks_per_dag"): "4",
        ("core", "dags_folder"): str(PROJECT_FOLDER / "dags"),
        ("core", "plugins_folder"): str(PROJECT_FOLDER / "plugins"),
        ("core", "load_examples"): "False",
        ("core", "dags_are_paused_at_creation"): "False",
        ("core", "default_timezone"): "utc",
        ("core", "fernet_key"): settings.secret("airflow_fernet_key"),
        ("core", "execution_api_server_url"): f"{base_url(settings)}/execution/",
        **_simple_users(settings),
        ("database", "sql_alchemy_conn"): f"postgresql+psycopg2://{metadata}",
        ("database", "sql_alchemy_pool_size"): "5",
        ("api", "host"): settings.host,
        ("api", "port"): str(settings.airflow_port),
        ("api", "base_url"): base_url(settings),
        ("api", "workers"): "1",
        ("api", "secret_key"): settings.secret("airflow_api_secret_key"),
        ("api_auth", "jwt_secret"): settings.secret("airflow_jwt_secret"),
        ("logging", "base_log_folder"): str(home(settings) / "logs"),
        ("logging", "worker_log_server_port"): str(settings.airflow_log_port),
        ("logging", "trigger_log_server_port"): str(settings.airflow_trigger_log_port),
        ("scheduler", "enable_health_check"): "True",
        ("scheduler", "scheduler_health_check_server_host"): settings.host,
        ("scheduler", "scheduler_health_check_server_port"): str(settings.airflow_scheduler_health_port),
        # the default of 5 s holds half the task slots that long after their task has finished
        ("workers", "min_heartbeat_interval"): "1",
        # In a cold start with both cores busy the API server came 17 s after the first task asked for it, and its
        # first answer took 19 s: the defaults (five tries of 5 s, some 13 s in all) failed that task.
        ("workers", "execution_api_timeout"): "60",
        ("workers", "execution_api_retries"): "15",
        ("workers", "execution_api_retry_wait_max"): "10",
        ("scheduler", "scheduler_idle_sleep_time"): "0.5",
        ("scheduler", "trigger_timeout_check_interval"): "5",
        # The default of 20 runs a loop are always the backfills' lowest in number: with three backfills of nine runs at
        # once the third one's hours came to the slot one by one, and could not share a job (decisions/0017).
        ("scheduler", "max_dagruns_per_loop_to_schedule"): "100",
        ("dag_processor", "parsing_processes"): "1",
        ("dag_processor", "min_file_process_interval"): "300",
        ("dag_processor", "refresh_interval"): "30",
        ("usage_data_collection", "enabled"): "False",
        **airflow_production.options(settings),
    }
    variables = {f"AIRFLOW__{section.upper()}__{name.upper()}": value for (section, name), value in options.items()}
    variables |= airflow_production.other_variables(settings)
    # where a secrets backend has them, no process's environment holds a password of theirs
    given = connections(settings) if settings.airflow_secrets == "environment" else {}
    return {"AIRFLOW_HOME": str(home(settings)), **variables, **given}


def _simple_users(settings: Settings) -> dict[tuple[str, str], str]:
    if settings.airflow_auth != "simple":
        return {}
    roles = airflow_production.SIMPLE_USERS.items()
    return {
        ("core", "simple_auth_manager_users"): ",".join(f"{name}:{role}" for name, role in roles),
        ("core", "simple_auth_manager_passwords_file"): str(home(settings) / "passwords.json"),
    }


def prepare(settings: Settings) -> None:
    """Folders, the users' passwords, and the connections where a file has them. Safe to run again."""
    (home(settings) / "logs").mkdir(parents=True, exist_ok=True)
    write_private(home(settings) / "passwords.json", json.dumps(airflow_production.passwords(settings)))
    if settings.airflow_secrets == "file":
        write_private(airflow_production.connections_file(settings), json.dumps(named_connections(settings)))


def run(settings: Settings, *arguments: str) -> str:
    """Run one `airflow` command in this home's environment and return what it printed."""
    command = [program(), *arguments]
    done = subprocess.run(command, env=_whole_environment(settings), capture_output=True, text=True, check=False)  # noqa: S603 - own list
    if done.returncode != 0:
        raise SetupError(f"`airflow {' '.join(arguments)}` failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def _whole_environment(settings: Settings) -> dict[str, str]:
    from marketflow.services.environment import embedded_environment

    return embedded_environment(settings) | environment(settings)


def migrate(settings: Settings) -> bool:
    """Bring the metadata database to this Airflow's version and create pools and FAB's users; True when it had to."""
    mark = home(settings) / "migrated.json"
    auth = {} if settings.airflow_auth == "simple" else {"auth": settings.airflow_auth}
    wanted = json.dumps({"airflow": version("apache-airflow"), "pools": POOLS, **auth})
    if mark.exists() and mark.read_text() == wanted:
        return False
    prepare(settings)
    run(settings, "db", "migrate")
    pools = home(settings) / "pools.json"
    pools.write_text(json.dumps(POOLS))
    run(settings, "pools", "import", str(pools))
    if settings.airflow_auth == "fab":
        airflow_production.make_users(settings, _whole_environment(settings))
    mark.write_text(wanted)
    return True


def health(settings: Settings) -> dict[str, str]:
    """Part → status, from the API server; an API that does not answer is `{"api_server": "down"}`."""
    url = f"{base_url(settings)}/api/v2/monitor/health"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own http address
            parts = json.load(answer)
    except (urllib.error.URLError, OSError, ValueError):
        return {"api_server": "down"}
    statuses = {name: str(part.get("status")) for name, part in parts.items() if isinstance(part, dict)}
    return {"api_server": "healthy", **statuses}


def wait_until_healthy(settings: Settings, timeout_s: float = 120.0) -> dict[str, str]:
    """Until all parts say healthy, or SetupError naming those that do not."""
    deadline = time.monotonic() + timeout_s
    while True:
        parts = health(settings)
        if len(parts) >= 4 and set(parts.values()) == {"healthy"}:
            return parts
        if time.monotonic() > deadline:
            raise SetupError(
                f"Airflow is not healthy after {timeout_s:.0f} s: {parts}; see `marketflow logs airflow-scheduler`"
            )
        time.sleep(1)
