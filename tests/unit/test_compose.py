"""The containers are the embedded stack's services, versions, ports and environment: the two must not drift."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml

from marketflow.paths import PROJECT_FOLDER
from marketflow.services.environment import machine_environment
from marketflow.settings import Settings, load
from marketflow.stack import airflow, kafka, secrets
from marketflow.stack.backend import backend


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PROJECT_FOLDER / "docker-compose.yaml").read_text())
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(home=tmp_path)
    secrets.ensure(found)
    return found


def _jar_version(name: str) -> str:
    dependencies = ElementTree.parse(PROJECT_FOLDER / "ivy.xml").iter("dependency")
    return next(str(one.get("rev")) for one in dependencies if one.get("name") == name)


# it reads what supervisord's wrappers write down, and containers have none: their engine restarts them
EMBEDDED_ONLY = {"watch"}


def test_services_are_the_embedded_ones(compose: dict[str, Any], settings: Settings) -> None:
    assert set(compose["services"]) == set(backend(settings).definitions) - EMBEDDED_ONLY


def test_images_are_the_embedded_versions(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["kafka"]["image"] == f"apache/kafka:{_jar_version('kafka_2.13')}"
    assert services["s3"]["image"].endswith(_jar_version("s3proxy"))
    assert services["postgres"]["image"] == "postgres:18.4"
    dockerfile = (PROJECT_FOLDER / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11\.", dockerfile, re.MULTILINE)
    assert "openjdk-17-jre" in dockerfile


def test_commands_are_the_embedded_ones(compose: dict[str, Any], settings: Settings) -> None:
    for name, definition in backend(settings).definitions.items():
        if definition.group == "infrastructure" or name in EMBEDDED_ONLY:
            continue
        embedded = [Path(definition.command[0]).name, *definition.command[1:]]
        embedded = [part.removeprefix(f"{PROJECT_FOLDER}/") for part in embedded]
        assert compose["services"][name]["command"] == embedded, name


def test_ports_are_the_embedded_ones(compose: dict[str, Any], settings: Settings) -> None:
    services, environment = compose["services"], compose["x-environment"]
    assert services["postgres"]["ports"] == [f"127.0.0.1:{settings.postgres_port}:{settings.postgres_port}"]
    assert services["airflow-api-server"]["ports"] == [f"127.0.0.1:{settings.airflow_port}:{settings.airflow_port}"]
    assert environment["MARKETFLOW_KAFKA_BOOTSTRAP_SERVERS"] == f"kafka:{settings.kafka_port}"
    assert environment["MARKETFLOW_S3_ENDPOINT_URL"] == f"http://s3:{settings.s3_port}"
    assert environment["MARKETFLOW_GLUE_ENDPOINT_URL"] == f"http://glue:{settings.glue_port}"
    assert f"simulator:{settings.simulator_ws_port}/" in environment["MARKETFLOW_COINBASE_WS_URL"]
    assert f"simulator:{settings.simulator_rest_port}/" in environment["MARKETFLOW_COINGECKO_REST_URL"]


def test_airflow_is_set_up_as_the_embedded_one(compose: dict[str, Any], settings: Settings) -> None:
    embedded = airflow.environment(settings)
    contained = compose["x-airflow"]["environment"]
    shared = [name for name in contained if name.startswith("AIRFLOW__")]
    elsewhere = ("FOLDER", "URL", "CONN", "SECRET", "FERNET")  # places and secrets are each deployment's own
    compared = [name for name in shared if not name.endswith(elsewhere) and not any(p in name for p in elsewhere)]
    assert len(compared) >= 9
    assert {name: contained[name] for name in compared} == {name: embedded[name] for name in compared}
    assert set(shared) <= set(embedded)


def test_the_dags_connections_are_the_embedded_ones_at_the_containers_addresses(
    compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    contained = compose["x-airflow"]["environment"]
    # as a container sees it: settings and secrets are variables
    for name, value in compose["x-environment"].items():
        monkeypatch.setenv(name, _filled(value, {}))
    given = {name: f"of {name}" for name in re.findall(r"\$\{(MARKETFLOW_SECRET_\w+)", "".join(contained.values()))}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wanted = airflow.connections(load())
    found = {name: _filled(contained[name], given) for name in contained if name.startswith("AIRFLOW_CONN_")}
    assert {name: json.loads(value) for name, value in found.items()} == {
        name: json.loads(value) for name, value in wanted.items()
    }


def _filled(text: str, given: dict[str, str]) -> str:
    """What compose makes of ${NAME} and ${NAME:-default}."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda found: given.get(found[1], found[2] or ""), text)


def test_what_production_adds_reaches_the_containers_by_the_env_file(compose: dict[str, Any]) -> None:
    """A variable that the file fixes wins over .env: of those that docs/production.md names it fixes none."""
    named = set(re.findall(r"`((?:AIRFLOW__|OTEL_)\w+)", (PROJECT_FOLDER / "docs" / "production.md").read_text()))
    assert len(named) >= 15
    assert named & set(compose["x-airflow"]["environment"]) == set()
    airflows = [one for name, one in compose["services"].items() if name.startswith("airflow-")]
    assert [one["env_file"] for one in airflows] == [".env"] * 4


def test_no_container_can_reach_a_cloud_account_by_accident(compose: dict[str, Any]) -> None:
    embedded = {name: value for name, value in machine_environment().items() if name.startswith("AWS_")}
    assert {name: compose["x-environment"][name] for name in embedded} == embedded


def test_kafka_is_configured_as_the_embedded_one(compose: dict[str, Any], settings: Settings) -> None:
    kafka.prepare(settings)
    lines = (settings.home / "kafka" / "server.properties").read_text().splitlines()
    embedded = dict(line.split("=", 1) for line in lines)
    contained = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in compose["services"]["kafka"]["environment"].items()
        if name.startswith("KAFKA_")
    }
    own = {"controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"}
    compared = contained.keys() - own
    assert {name: contained[name] for name in compared} == {name: embedded[name] for name in compared}
