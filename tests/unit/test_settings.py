"""Settings are checked once, and a wrong one is named in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import Settings, load
from marketflow.simulator import configuration
from marketflow.simulator.configuration import SimulatorConfiguration


def test_two_datasets_share_no_topic_namespace_database_or_checkpoint(tmp_path: Path) -> None:
    simulated, live = load(home=tmp_path, dataset="sim"), load(home=tmp_path, dataset="live")
    for name in ("topic_prefix", "postgres_database", "checkpoints"):
        assert getattr(simulated, name) != getattr(live, name)
    assert simulated.namespace("silver") == "sim_silver"
    assert live.namespace("silver") == "live_silver"


def test_the_environment_wins_over_what_up_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"kafka_port": 31092, "s3_port": 31080}))
    monkeypatch.setenv("MARKETFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("MARKETFLOW_S3_PORT", "32080")
    settings = load()
    assert (settings.kafka_port, settings.s3_port) == (31092, 32080)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MARKETFLOW_DATASET", "prod", "MARKETFLOW_DATASET: Input should be 'sim', 'live' or 'replay'"),
        ("MARKETFLOW_PRODUCTS", "BTC-USD,FOO-BAR", "MARKETFLOW_PRODUCTS: unknown product FOO-BAR; known: "),
        ("MARKETFLOW_PRODUCTS", " , ", "MARKETFLOW_PRODUCTS: at least one product is needed"),
        ("MARKETFLOW_VS_CURRENCIES", "usd,xyz", "MARKETFLOW_VS_CURRENCIES: unknown currency xyz; .*got 'usd,xyz'"),
        ("MARKETFLOW_POSTGRES_PORT", "99999", "MARKETFLOW_POSTGRES_PORT: .*65535"),
        ("MARKETFLOW_SPARK_DRIVER_MEMORY", "lots", "MARKETFLOW_SPARK_DRIVER_MEMORY: "),
        ("MARKETFLOW_ALERT_URL", "notaurl", "MARKETFLOW_ALERT_URL: must be an address like https://host:port/path"),
        ("MARKETFLOW_ALERT_URL", "https://host:port", "MARKETFLOW_ALERT_URL: must be an address"),
        ("MARKETFLOW_ALERT_URL", "https://hooks.example/T00 /B00", "MARKETFLOW_ALERT_URL: must be an address"),
        ("MARKETFLOW_ALERT_URL", "https://hooks.example/ä", "MARKETFLOW_ALERT_URL: must be an address"),
        ("MARKETFLOW_ALERT_URL", "file:///etc/passwd", "MARKETFLOW_ALERT_URL: must be an address.*Apprise's"),
        ("MARKETFLOW_ALERT_URL", "slack://", "MARKETFLOW_ALERT_URL: must be an address.*Apprise's"),
        ("MARKETFLOW_COINBASE_WS_URL", "https://host", "MARKETFLOW_COINBASE_WS_URL: .* wss://host"),
        ("MARKETFLOW_PRODUCT", "ETH-USD", "MARKETFLOW_PRODUCT of the environment is no .*mean MARKETFLOW_PRODUCTS?"),
        ("MARKETFLOW_XQ", "1", "MARKETFLOW_XQ of the environment is no setting of marketflow; .env.example lists them"),
        ("MARKETFLOW_COINGECKO_POLL_INTERVAL_S", "0", "MARKETFLOW_COINGECKO_POLL_INTERVAL_S: .*greater than 0"),
        ("MARKETFLOW_COINGECKO_POLL_INTERVAL_S", "inf", "MARKETFLOW_COINGECKO_POLL_INTERVAL_S: .*finite"),
        ("MARKETFLOW_KAFKA_PORT", "many", "MARKETFLOW_KAFKA_PORT: .*valid integer"),
        # what is promised is kept longer than the promise
        ("MARKETFLOW_SNAPSHOT_KEEP_HOURS", "72", "MARKETFLOW_SNAPSHOT_KEEP_HOURS: .*greater than 72"),
        ("MARKETFLOW_KAFKA_RETENTION_HOURS", "71", "MARKETFLOW_KAFKA_RETENTION_HOURS: .*or equal to 72"),
        ("MARKETFLOW_CCXT_OPTIONS", "nojson", "MARKETFLOW_CCXT_OPTIONS: JSON is expected"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        load()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"{", "stack.json of MARKETFLOW_HOME is spoilt: Expecting .*`make up`, which writes it anew"),
        ("größer".encode("latin-1"), "stack.json of MARKETFLOW_HOME is spoilt: .*decode"),
        (b"[25092]", "stack.json of MARKETFLOW_HOME is spoilt: no JSON object"),
    ],
)
def test_a_recorded_file_that_is_spoilt_is_named_in_one_line(tmp_path: Path, said: bytes, sentence: str) -> None:
    (tmp_path / "stack.json").write_bytes(said)
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        load(home=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_dotenv_that_is_no_text_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marketflow.settings_words.PROJECT_FOLDER", tmp_path)
    (tmp_path / ".env").write_bytes("MARKETFLOW_COMMENT=größer".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"^\.env cannot be read: .*position 21"):
        load()


def test_the_simulator_names_what_it_cannot_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFLOW_SIMULATOR_FAULTS", "drop")
    with pytest.raises(ConfigurationError, match=r'^MARKETFLOW_SIMULATOR_FAULTS: JSON is expected, such as \{"drop'):
        configuration.load()
    monkeypatch.delenv("MARKETFLOW_SIMULATOR_FAULTS")
    monkeypatch.setattr("marketflow.settings_words.PROJECT_FOLDER", tmp_path)
    (tmp_path / ".env").write_bytes("MARKETFLOW_COMMENT=größer".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"^\.env cannot be read: "):
        configuration.load()


def test_a_recorded_file_that_cannot_be_opened_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "stack.json").mkdir()
    with pytest.raises(ConfigurationError, match=r"^stack.json of MARKETFLOW_HOME cannot be read: .*directory"):
        load(home=tmp_path)


def test_glues_own_crawler_is_for_aws_and_needs_a_role(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MARKETFLOW_CRAWLER: glue needs MARKETFLOW_DEPLOYMENT=aws and"):
        load(home=tmp_path, crawler="glue", glue_crawler_role="role")
    with pytest.raises(ConfigurationError, match="MARKETFLOW_GLUE_CRAWLER_ROLE"):
        load(home=tmp_path, crawler="glue", deployment="aws")
    made = load(home=tmp_path, crawler="glue", deployment="aws", glue_crawler_role="role")
    assert made.glue_endpoint is None
    assert load(home=tmp_path, glue_port=5).glue_endpoint == "http://127.0.0.1:5"


def test_a_missing_secret_says_how_secrets_come_to_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="run `make up`"):
        load(home=tmp_path).secret("postgres_airflow")


def test_simulated_feeds_stay_on_this_machine_and_live_ones_do_not(tmp_path: Path) -> None:
    assert all("127.0.0.1" in url for url in load(home=tmp_path, dataset="sim").venue_urls.values())
    live = load(home=tmp_path, dataset="live").venue_urls
    assert live["coinbase_ws"] == "wss://ws-feed.exchange.coinbase.com"
    assert live["coingecko_rest"] == "https://api.coingecko.com/api/v3"
    paid = load(home=tmp_path, dataset="live", coingecko_plan="analyst").venue_urls
    assert paid["coingecko_rest"] == "https://pro-api.coingecko.com/api/v3"


def test_the_example_file_names_only_real_settings_with_their_defaults() -> None:
    text = (PROJECT_FOLDER / ".env.example").read_text()
    lines = dict(re.findall(r"^#(MARKETFLOW_[A-Z0-9_]+)=(.*)$", text, re.MULTILINE))
    named = {name: value for name, value in lines.items() if not name.startswith("MARKETFLOW_SECRET_")}
    assert len(named) >= 25
    simulators = {f"MARKETFLOW_SIMULATOR_{key.upper()}": of for key, of in SimulatorConfiguration.model_fields.items()}
    for name, value in named.items():
        field = simulators.get(name) or Settings.model_fields[name.removeprefix("MARKETFLOW_").lower()]
        shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        if name == "MARKETFLOW_HOME":
            assert field.default == PROJECT_FOLDER / value
        else:
            assert value == ("" if shown is None else f"{shown:g}" if isinstance(shown, float) else str(shown)), name


def test_an_empty_line_of_the_file_is_a_setting_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFLOW_ALERT_URL", "")
    assert load(home=tmp_path).alert_url is None


@pytest.mark.parametrize("target", ["https://hooks.example/x", "json://host/x", "mailto://user:pass@example.com"])
def test_alerts_go_to_a_webhook_or_to_any_target_of_apprise(tmp_path: Path, target: str) -> None:
    assert load(home=tmp_path, alert_url=target).alert_url == target


def test_only_in_a_container_is_there_anything_to_listen_to_from_outside(tmp_path: Path) -> None:
    hosts = {deployment: load(home=tmp_path, deployment=deployment).listen_host for deployment in ("embedded", "aws")}
    assert set(hosts.values()) == {"127.0.0.1"}
    assert load(home=tmp_path, deployment="compose").listen_host == "0.0.0.0"


@pytest.mark.parametrize(
    "wrong",
    [{"MARKETFLOW_SOURCES": "ccxt"}, {"MARKETFLOW_CCXT_OPTIONS": '{"secret": "S3CRET"'}],
    ids=["several", "json"],
)
def test_no_error_shows_a_key(monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]) -> None:
    for name, value in {"MARKETFLOW_COINGECKO_API_KEY": "CG-S3CRET", **wrong}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load()
    assert "S3CRET" not in str(caught.value)
    assert str(caught.value).startswith(f"{next(iter(wrong))}: ")
