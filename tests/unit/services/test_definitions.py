"""What runs, with which environment, and what makes its configuration another one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marketflow.contracts.sources import SOURCES
from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER
from marketflow.services.definitions import ServiceDefinition, configuration_hash
from marketflow.services.environment import embedded_environment
from marketflow.settings import Settings, load
from marketflow.stack import secrets
from marketflow.stack.definitions import definitions

ALWAYS = {
    "postgres",
    "kafka",
    "s3",
    "market-stream",
    "glue",
    "airflow-api-server",
    "airflow-scheduler",
    "airflow-dag-processor",
    "airflow-triggerer",
    "watch",
}
PRODUCERS = {"producer-coinbase", "producer-binance", "producer-binance-prices", "producer-coingecko"}


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MARKETFLOW_", "AWS_"))]:
        monkeypatch.delenv(name)


def settings(home: Path, **overrides: Any) -> Settings:
    made = load(home=home, **overrides)
    secrets.ensure(made)
    return made


def by_name(home: Path, **overrides: Any) -> dict[str, ServiceDefinition]:
    return {one.name: one for one in definitions(settings(home, **overrides))}


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"dataset": "sim"}, ALWAYS | PRODUCERS | {"producer-coincap", "simulator"}),
        ({"dataset": "live"}, ALWAYS | PRODUCERS),
        ({"dataset": "replay"}, ALWAYS),
        ({"dataset": "live", "deployment": "aws"}, PRODUCERS | {"market-stream"}),
    ],
    ids=["sim", "live", "replay", "aws"],
)
def test_each_dataset_and_deployment_has_exactly_its_services(
    tmp_path: Path, overrides: dict[str, str], names: set[str]
) -> None:
    assert set(by_name(tmp_path, **overrides)) == names


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"products": ("BTC-USD",)}, {"producer-coinbase", "producer-coingecko", "producer-coincap"}),
        ({"products": ("BTC-USDT",), "dataset": "live"}, PRODUCERS - {"producer-coinbase"}),
        ({"sources": ("coinbase_advanced", "cryptocompare")}, {"producer-coinbase-advanced", "producer-cryptocompare"}),
    ],
    ids=["no-binance-product", "no-coinbase-product", "asked-for"],
)
def test_only_sources_that_have_something_to_collect_or_were_asked_for_run(
    tmp_path: Path, overrides: dict[str, Any], names: set[str]
) -> None:
    assert {name for name in by_name(tmp_path, **overrides) if name.startswith("producer-")} == names


@pytest.mark.parametrize(
    ("sources", "waits"),
    [
        (None, ("60", "BTC-USD,ETH-USD,BTC-USDT,ETH-USDT")),
        (("coinbase_exchange", "coingecko"), ("60", "BTC-USD,ETH-USD")),
        (("binance_prices", "coingecko"), ("0", "")),
    ],
    ids=["default", "no-binance", "no-feed"],
)
def test_the_exchange_waits_for_the_feeds_that_run_and_for_no_other(
    tmp_path: Path, sources: tuple[str, ...] | None, waits: tuple[str, str]
) -> None:
    environment = by_name(tmp_path, sources=sources)["simulator"].environment
    names = ("MARKETFLOW_SIMULATOR_WAIT_FOR_LISTENER_S", "MARKETFLOW_SIMULATOR_WAIT_FOR_PRODUCTS")
    assert tuple(environment[name] for name in names) == waits


def test_a_source_that_was_asked_for_and_has_no_product_is_refused_with_what_it_knows() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"MARKETFLOW_SOURCES: binance trades none of MARKETFLOW_PRODUCTS \(.*\); it knows .*BTC-USDT",
    ):
        load(sources=("binance",), products=("BTC-USD",))
    with pytest.raises(ConfigurationError, match="MARKETFLOW_SOURCES: unknown source kraken; known: binance, "):
        load(sources=("kraken",))


@pytest.mark.parametrize(
    "chosen", [tuple(name for name in SOURCES if name != "ccxt"), ("binance", "coinbase_exchange")]
)
def test_a_producer_can_start_with_what_its_service_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: tuple[str, ...]
) -> None:
    """Its own products, and its own source: of the others it would have no product."""
    services = by_name(tmp_path, sources=chosen)
    for name in chosen:
        given = services[SOURCES[name].service].environment
        with monkeypatch.context() as patch:
            for variable, value in given.items():
                if variable.startswith("MARKETFLOW_"):
                    patch.setenv(variable, value)
            settings = load()
        assert [source.name for source in settings.active_sources] == [name]
        assert not SOURCES[name].by_product or settings.products_of(SOURCES[name])


def test_commands_are_those_of_the_services_own_modules(tmp_path: Path) -> None:
    found = by_name(tmp_path)
    python = str(Path(sys.prefix) / "bin" / "python")

    assert found["simulator"].command == (python, "-m", "marketflow.simulator")
    assert found["producer-coinbase"].command == (python, "-m", "marketflow.ingest", "coinbase_exchange")
    assert found["producer-coingecko"].command == (python, "-m", "marketflow.ingest", "coingecko")
    assert found["market-stream"].command == (python, str(PROJECT_FOLDER / "spark_jobs" / "stream_market.py"))
    assert found["glue"].command == (python, "-m", "marketflow.stack.glue_server")
    assert found["airflow-scheduler"].command[1:] == ("scheduler", "--skip-serve-logs")
    assert found["airflow-triggerer"].command[1:] == ("triggerer", "--skip-serve-logs")
    assert found["postgres"].stop_signal == "INT"


def test_everyone_waits_for_what_it_needs_and_airflow_for_postgres_alone(tmp_path: Path) -> None:
    found = by_name(tmp_path, kafka_port=1, postgres_port=2, s3_port=3, simulator_ws_port=4, simulator_rest_port=5)
    waits = {name: set(one.wait_for) for name, one in found.items()}
    kafka, postgres, s3, ws, rest = (f"127.0.0.1:{port}" for port in range(1, 6))

    assert waits["producer-coinbase"] == {kafka, ws}
    assert waits["producer-coingecko"] == {kafka, rest}
    assert waits["market-stream"] == {kafka, postgres, s3}
    assert {name: wait for name, wait in waits.items() if name.startswith("airflow")} == {
        name: {postgres} for name in ALWAYS if name.startswith("airflow")
    }
    assert not any(waits[name] for name in ("postgres", "kafka", "s3", "simulator"))
    assert set(by_name(tmp_path, dataset="live", kafka_port=1)["producer-coinbase"].wait_for) == {kafka}


def test_nothing_of_a_cloud_account_reaches_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "real")

    for one in by_name(tmp_path).values():
        cloud = {name: value for name, value in one.environment.items() if name.startswith("AWS_")}
        assert cloud == {
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "WHEN_REQUIRED",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "WHEN_REQUIRED",
        }


def test_the_embedded_environment_holds_the_settings_in_force_and_no_stray_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETFLOW_PRODUCTS", "ETH-USD")
    monkeypatch.setenv("MARKETFLOW_SECRET_S3_ACCESS_KEY", "given")
    monkeypatch.setenv("MARKETFLOW_SIMULATOR_RATE", "10")
    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "producers")

    found = embedded_environment(load(home=tmp_path, dataset="live"))

    assert {name: value for name, value in found.items() if name.startswith("MARKETFLOW_")} == {
        "MARKETFLOW_HOME": str(tmp_path),
        "MARKETFLOW_DATASET": "live",
        "MARKETFLOW_DEPLOYMENT": "embedded",
        "MARKETFLOW_PRODUCTS": "ETH-USD",
        "MARKETFLOW_SECRET_S3_ACCESS_KEY": "given",
        "MARKETFLOW_SIMULATOR_RATE": "10",
    }
    assert not {"SUPERVISOR_ENABLED", "AIRFLOW_CTX_DAG_ID"} & set(found)
    assert found["PYTHONUNBUFFERED"] == "1"
    assert found["PYSPARK_PYTHON"] == str(Path(sys.prefix) / "bin" / "python")


def test_a_service_reads_back_the_settings_it_was_defined_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"products": ("ETH-USD",), "feed_silence_s": 7.5, "coinbase_ws_url": "ws://127.0.0.1:9/x", "kafka_port": 7}
    environment = by_name(tmp_path, **given)["producer-coinbase"].environment
    for name, value in environment.items():
        if name.startswith("MARKETFLOW_"):
            monkeypatch.setenv(name, value)

    read = load()

    assert {name: getattr(read, name) for name in given} == given
    assert read.home == tmp_path


@pytest.mark.parametrize(
    ("changed", "restarted"),
    [
        ({"products": ("ETH-USD", "BTC-USDT", "ETH-USDT")}, {"simulator", "producer-coinbase"}),
        (
            {"products": ("BTC-USD", "ETH-USD", "BTC-USDT")},
            {"simulator", "producer-binance", "producer-binance-prices"},
        ),
        ({"coingecko_poll_interval_s": 60.0}, {"producer-coingecko"}),
        ({"coingecko_api_key": "key"}, {"producer-coingecko"}),
        ({"bronze_trigger_s": 60}, {"market-stream"}),
        # Airflow's connection of the lake names Glue's address
        ({"glue_port": 25999}, {"glue", *(name for name in ALWAYS if name.startswith("airflow-"))}),
        ({"publish_days": 7}, set()),
        ({"alert_url": "https://hooks.example/1"}, {"watch"}),
        ({"airflow_metrics": "statsd://127.0.0.1:8125"}, {name for name in ALWAYS if name.startswith("airflow-")}),
    ],
    ids=[
        "coinbase-products",
        "binance-products",
        "poll-interval",
        "api-key",
        "trigger",
        "glue-port",
        "publication",
        "alerts",
        "airflow-metrics",
    ],
)
def test_a_changed_setting_changes_the_configuration_of_those_it_concerns_only(
    tmp_path: Path, changed: dict[str, object], restarted: set[str]
) -> None:
    before, after = by_name(tmp_path), by_name(tmp_path, **changed)

    assert {name for name in before if configuration_hash(before[name]) != configuration_hash(after[name])} == restarted


def test_the_configuration_is_the_same_from_whichever_shell_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: configuration_hash(one) for name, one in by_name(tmp_path).items()}
    monkeypatch.setenv("PATH", f"/somewhere:{os.environ['PATH']}")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("AIRFLOW_CTX_TRY_NUMBER", "2")
    monkeypatch.setattr(sys, "executable", "/usr/bin/other-python")

    assert {name: configuration_hash(one) for name, one in by_name(tmp_path).items()} == before


def test_a_definition_shows_no_secret(tmp_path: Path) -> None:
    one = by_name(tmp_path, coingecko_api_key="s3cr3t")["producer-coingecko"]

    assert one.environment["MARKETFLOW_COINGECKO_API_KEY"] == "s3cr3t"
    assert "s3cr3t" not in repr(one)
    assert len(configuration_hash(one)) == 32
    assert configuration_hash(replace(one, priority=1, autostart=False)) == configuration_hash(one)


def test_airflow_sees_the_same_configuration_as_whoever_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETFLOW_COINGECKO_POLL_INTERVAL_S", "45")
    found = by_name(tmp_path, dataset="live")
    script = (
        "import json\nfrom marketflow.services.definitions import configuration_hash\n"
        "from marketflow.stack.definitions import definitions\n"
        "from marketflow.settings import load\n"
        "print(json.dumps({one.name: configuration_hash(one) for one in definitions(load())}))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env=found["airflow-scheduler"].environment,
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == {name: configuration_hash(one) for name, one in found.items()}
