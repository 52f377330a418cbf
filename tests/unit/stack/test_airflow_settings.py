"""What of a production Airflow can be turned on: off it adds nothing, on it is these variables, wrong it is refused."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import Settings, load
from marketflow.stack import airflow, airflow_production, secrets
from marketflow.stack import dag as one_dag

PAGE = (PROJECT_FOLDER / "docs" / "production.md").read_text()


def settings(home: Path, **asked: str) -> Settings:
    found = load(home=home, **asked)
    secrets.ensure(found)
    return found


def added(home: Path, **asked: str) -> dict[str, str]:
    """The variables that a setting adds or changes."""
    before, after = airflow.environment(settings(home)), airflow.environment(settings(home, **asked))
    return {name: value for name, value in after.items() if before.get(name) != value}


def test_nothing_asked_for_adds_nothing(tmp_path: Path) -> None:
    plain = settings(tmp_path)
    assert airflow_production.options(plain) == {}
    assert airflow_production.other_variables(plain) == {}
    names = set(airflow.environment(plain))
    assert not [name for name in names if "AUTH_MANAGER" in name and "SIMPLE" not in name]
    assert {"AIRFLOW_CONN_MARKETFLOW_PG", "AIRFLOW_CONN_LAKE_AWS"} <= names


def test_fab_replaces_the_simple_users_and_has_one_for_each_role(tmp_path: Path) -> None:
    asked = settings(tmp_path, airflow_auth="fab")
    names = airflow.environment(asked)
    assert names["AIRFLOW__CORE__AUTH_MANAGER"].endswith("fab_auth_manager.FabAuthManager")
    assert not [name for name in names if "SIMPLE_AUTH" in name]
    airflow.prepare(asked)
    assert set(json.loads((airflow.home(asked) / "passwords.json").read_text())) == {"admin", "op", "viewer"}


def test_remote_logs_are_a_folder_of_a_bucket_and_the_lakes_connection(tmp_path: Path) -> None:
    assert added(tmp_path, airflow_remote_logs="s3://lake/airflow-logs/") == {
        "AIRFLOW__LOGGING__REMOTE_LOGGING": "True",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://lake/airflow-logs",
        "AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "lake_aws",
    }


def test_the_connections_file_is_private_and_takes_the_connections_out_of_the_environment(tmp_path: Path) -> None:
    asked = settings(tmp_path, airflow_secrets="file")
    airflow.prepare(asked)
    path = airflow_production.connections_file(asked)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == airflow.named_connections(asked)
    names = airflow.environment(asked)
    assert not [name for name in names if name.startswith("AIRFLOW_CONN_")]
    assert json.loads(names["AIRFLOW__SECRETS__BACKEND_KWARGS"]) == {"connections_file_path": str(path)}
    assert asked.secret("postgres_marketflow_writer") not in "".join(names.values())


def test_a_secrets_manager_is_asked_at_its_address_for_connections_alone(tmp_path: Path) -> None:
    names = added(tmp_path, airflow_secrets="secretsmanager://127.0.0.1:5000/airflow/connections")
    assert names["AIRFLOW__SECRETS__BACKEND"].endswith(".SecretsManagerBackend")
    given = json.loads(names["AIRFLOW__SECRETS__BACKEND_KWARGS"])
    assert (given["endpoint_url"], given["connections_prefix"]) == ("http://127.0.0.1:5000", "airflow/connections")
    assert (given["variables_prefix"], given["config_prefix"]) == (None, None)


@pytest.mark.parametrize(
    ("target", "transport"),
    [
        ("file:///var/log/a%20b.ndjson", {"type": "file", "log_file_path": "/var/log/a b.ndjson", "append": True}),
        ("http://marquez:5000", {"type": "http", "url": "http://marquez:5000"}),
        ("https://host/own/path", {"type": "http", "url": "https://host", "endpoint": "own/path"}),
    ],
)
def test_lineage_goes_to_a_file_or_an_address(tmp_path: Path, target: str, transport: dict[str, object]) -> None:
    names = added(tmp_path, airflow_lineage=target)
    assert json.loads(names.pop("AIRFLOW__OPENLINEAGE__TRANSPORT")) == transport
    assert names == {"AIRFLOW__OPENLINEAGE__NAMESPACE": "marketflow-sim"}


def test_metrics_go_to_statsd_or_to_a_collector(tmp_path: Path) -> None:
    assert added(tmp_path, airflow_metrics="statsd://127.0.0.1:8125") == {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": "8125",
    }
    collector = added(tmp_path, airflow_metrics="http://collector:4318")
    assert collector.pop("AIRFLOW__METRICS__OTEL_ON") == "True"
    assert collector["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert all(name.startswith("OTEL_") for name in collector)


def test_a_dag_by_hand_keeps_logs_and_metrics_to_itself(tmp_path: Path) -> None:
    asked = {"airflow_auth": "fab", "airflow_remote_logs": "s3://lake/logs", "airflow_metrics": "statsd://h:1"}
    names = one_dag.environment(settings(tmp_path, **asked))
    assert not [name for name in names if "REMOTE" in name or "STATSD" in name or name.endswith("CORE__AUTH_MANAGER")]


def test_the_page_names_the_variables_that_the_settings_make(tmp_path: Path) -> None:
    rows = re.findall(r"^\| [^|]+ \| `MARKETFLOW_(AIRFLOW_\w+)=([^`]+)`[^|]* \| (.+) \|$", PAGE, re.MULTILINE)
    assert [(name, value) for name, value, _ in rows] == [
        ("AIRFLOW_AUTH", "fab"),
        ("AIRFLOW_REMOTE_LOGS", "s3://lake/airflow-logs"),
        ("AIRFLOW_SECRETS", "file"),
        ("AIRFLOW_LINEAGE", "file:///path/events.ndjson"),
        ("AIRFLOW_METRICS", "statsd://host:8125"),
        ("AIRFLOW_METRICS", "http://host:4318"),
    ]
    for name, value, told in rows:
        made = added(tmp_path, **{name.lower(): value})
        said = dict(re.findall(r"`(\w+)(?:=([^`…]+))?[^`]*`", told))
        assert set(said) == set(made), name
        assert all(made[variable].startswith(text) for variable, text in said.items()), name


def test_the_page_names_the_connections_of_the_dags(tmp_path: Path) -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.MULTILINE))
    held = airflow.named_connections(settings(tmp_path))
    assert told == {name: connection["conn_type"] for name, connection in held.items()}


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("AUTH", "ldap", "Input should be 'simple' or 'fab'"),
        ("REMOTE_LOGS", "/var/log", "must be a folder of a bucket, like s3://lake/airflow-logs"),
        ("REMOTE_LOGS", "s3://lake", "must be a folder of a bucket"),
        ("SECRETS", "vault://x", r"must be environment, file .* or secretsmanager://host:port/prefix"),
        ("SECRETS", "secretsmanager://airflow/connections", "must be environment, file"),
        ("LINEAGE", "file://relative", r"must be file:///path/events.ndjson or an address"),
        ("LINEAGE", "kafka://x", r"must be file:///path/events.ndjson or an address"),
        ("METRICS", "statsd://127.0.0.1", "must be statsd://host:8125 or an OpenTelemetry collector's"),
        ("METRICS", "statsd://[", "must be statsd://host:8125"),
    ],
)
def test_what_is_impossible_is_refused_with_what_is_possible(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(f"MARKETFLOW_AIRFLOW_{name}", value)
    with pytest.raises(ConfigurationError, match=f"MARKETFLOW_AIRFLOW_{name}: {sentence}"):
        load()


@pytest.mark.parametrize("deployment", ["compose", "aws"])
def test_elsewhere_the_settings_are_refused_since_nothing_would_read_them(tmp_path: Path, deployment: str) -> None:
    with pytest.raises(ConfigurationError, match=r"MARKETFLOW_AIRFLOW_AUTH is for the embedded stack; .*production.md"):
        load(home=tmp_path, deployment=deployment, airflow_auth="fab")
