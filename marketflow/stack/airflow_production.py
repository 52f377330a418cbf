"""A production Airflow on one machine: login with roles, remote logs, a secrets backend, lineage, metrics.

Each is a setting that is off, and then adds no variable, so that a laptop pays for none of them. docs/production.md has
the same in Airflow's own variables, for an Airflow that is not ours.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

from marketflow.errors import SetupError
from marketflow.services.environment import python
from marketflow.settings import Settings

# user → role. The simple auth manager knows roles by these names, FAB by its own.
SIMPLE_USERS = {"admin": "admin", "viewer": "viewer"}
FAB_USERS = {"admin": "Admin", "op": "Op", "viewer": "Viewer"}
FAB_AUTH_MANAGER = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
FILE_BACKEND = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
AWS_BACKEND = "airflow.providers.amazon.aws.secrets.secrets_manager.SecretsManagerBackend"

# `airflow users create` takes a password as an argument, which every process list shows, one user a start of Airflow.
_MAKE_USERS = """
import json, sys
from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
with get_application_builder() as builder:
    manager = builder.sm
    for name, role, password in json.load(sys.stdin):
        if user := manager.find_user(name):
            user.roles = [manager.find_role(role)]
            manager.update_user(user)
            manager.reset_password(user.id, password)
        elif not manager.add_user(name, name, "marketflow", f"{name}@localhost", manager.find_role(role), password):
            sys.exit(f"user {name} could not be made")
"""


def users(settings: Settings) -> dict[str, str]:
    """User → role, of the auth manager in force."""
    return FAB_USERS if settings.airflow_auth == "fab" else SIMPLE_USERS


def passwords(settings: Settings) -> dict[str, str]:
    """User → password, from the home's secrets."""
    return {name: settings.secret(f"airflow_{name}_password") for name in users(settings)}


def make_users(settings: Settings, variables: dict[str, str]) -> None:
    """FAB's users with their roles; one that is there gets its role and password again."""
    wanted = [(name, FAB_USERS[name], password) for name, password in passwords(settings).items()]
    done = subprocess.run(  # noqa: S603 - own list
        [python(), "-c", _MAKE_USERS],
        env=variables,
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SetupError(f"Airflow's users could not be made:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")


def options(settings: Settings) -> dict[tuple[str, str], str]:
    """(section, name) → value of everything that was asked for; empty where nothing was."""
    return {
        **({("core", "auth_manager"): FAB_AUTH_MANAGER} if settings.airflow_auth == "fab" else {}),
        **_remote_logs(settings),
        **_secrets_backend(settings),
        **_lineage(settings),
        **_metrics(settings),
    }


def other_variables(settings: Settings) -> dict[str, str]:
    """What is no option of Airflow's: OpenTelemetry is told by the variables of its own standard."""
    target = settings.airflow_metrics
    if target is None or target.startswith("statsd:"):
        return {}
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": target,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": f"airflow-{settings.dataset}",
        "OTEL_METRIC_EXPORT_INTERVAL": "10000",
    }


def _remote_logs(settings: Settings) -> dict[tuple[str, str], str]:
    if settings.airflow_remote_logs is None:
        return {}
    return {
        ("logging", "remote_logging"): "True",
        ("logging", "remote_base_log_folder"): settings.airflow_remote_logs,
        ("logging", "remote_log_conn_id"): "lake_aws",
    }


def _secrets_backend(settings: Settings) -> dict[tuple[str, str], str]:
    if settings.airflow_secrets == "environment":
        return {}
    arguments: dict[str, str | None]
    if settings.airflow_secrets == "file":
        backend, arguments = FILE_BACKEND, {"connections_file_path": str(connections_file(settings))}
    else:
        place = urlsplit(settings.airflow_secrets)
        backend = AWS_BACKEND
        arguments = {
            "connections_prefix": place.path.strip("/"),
            # of variables and options there are none, so nobody asks for them
            "variables_prefix": None,
            "config_prefix": None,
            "endpoint_url": f"http://{place.netloc}",
            "region_name": settings.aws_region,
            # as to everything on this machine that speaks AWS's language: never a key of a cloud account
            "aws_access_key_id": settings.secret("s3_access_key"),
            "aws_secret_access_key": settings.secret("s3_secret_key"),
        }
    return {("secrets", "backend"): backend, ("secrets", "backend_kwargs"): json.dumps(arguments)}


def connections_file(settings: Settings) -> Path:
    """Where the file backend's connections are; only its owner may read it."""
    return settings.home / "airflow" / "connections.json"


def _lineage(settings: Settings) -> dict[tuple[str, str], str]:
    target = settings.airflow_lineage
    if target is None:
        return {}
    if target.startswith("file:"):
        transport: dict[str, str | bool] = {
            "type": "file",
            "log_file_path": unquote(urlsplit(target).path),
            "append": True,
        }
    else:
        parts = urlsplit(target)
        transport = {"type": "http", "url": f"{parts.scheme}://{parts.netloc}"}
        # without a path it is where Marquez and its like listen, api/v1/lineage
        transport |= {"endpoint": parts.path.strip("/")} if parts.path.strip("/") else {}
    return {
        ("openlineage", "transport"): json.dumps(transport),
        # two datasets are two worlds, to a reader of lineage too
        ("openlineage", "namespace"): f"marketflow-{settings.dataset}",
    }


def _metrics(settings: Settings) -> dict[tuple[str, str], str]:
    target = settings.airflow_metrics
    if target is None:
        return {}
    if not target.startswith("statsd:"):
        return {("metrics", "otel_on"): "True"}
    place = urlsplit(target)
    return {
        ("metrics", "statsd_on"): "True",
        ("metrics", "statsd_host"): str(place.hostname),
        ("metrics", "statsd_port"): str(place.port),
    }
