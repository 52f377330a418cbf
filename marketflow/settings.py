"""Typed, frozen settings, read and checked once at the edge of a program.

Order of precedence: MARKETFLOW_* environment variables, then `.env` in the project folder, then what `make up`
recorded about this machine in `<home>/stack.json` (ports that were free), then the defaults below.
Secrets that `make up` generated are in `<home>/secrets.json` (mode 0600) and are read when first asked for.
"""

from __future__ import annotations

import difflib
import json
import os
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from marketflow.contracts.products import PRODUCTS, VS_CURRENCIES
from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER

Dataset = Literal["sim", "live", "replay"]
Deployment = Literal["embedded", "compose", "aws"]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
Port = Annotated[int, Field(ge=1, le=65_535)]
PortOrAny = Annotated[int, Field(ge=0, le=65_535)]

# MARKETFLOW_* names that are no field here: secrets, the simulator's own knobs, the wrapper's mark on its processes
_OTHER_NAMES = ("MARKETFLOW_SECRET_", "MARKETFLOW_SIMULATOR_", "MARKETFLOW_SERVICE_RUN")


def _url(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            host = parts.hostname if parts.port != 0 else None
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.scheme not in schemes or not host:
            raise ValueError(f"must be an address like {schemes[0]}://host:port/path")
        return value

    return AfterValidator(check)


HttpUrl = Annotated[str, _url("https", "http")]
SocketUrl = Annotated[str, _url("wss", "ws")]


class StackFile(PydanticBaseSettingsSource):
    """What `make up` wrote down about this machine: `<home>/stack.json`, keys are field names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Unused by pydantic-settings when __call__ answers for all fields at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """All recorded values; an absent file means nothing was recorded yet."""
        home = self.current_state.get("home") or PROJECT_FOLDER / ".marketflow"
        path = Path(str(home)) / "stack.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}


class Settings(BaseSettings):
    """Everything that differs between two runs of the same code."""

    model_config = SettingsConfigDict(
        env_prefix="MARKETFLOW_",
        env_file=PROJECT_FOLDER / ".env",
        frozen=True,
        # an empty line of .env leaves the default
        env_ignore_empty=True,
        extra="ignore",
        validate_default=True,
    )

    deployment: Deployment = "embedded"
    dataset: Dataset = "sim"
    home: Path = PROJECT_FOLDER / ".marketflow"

    # what is collected
    products: CommaSeparated = ("BTC-USD", "ETH-USD")
    vs_currencies: CommaSeparated = ("usd",)
    coingecko_assets: int = Field(100, ge=1, le=10_000)
    # None: every 30 s, or as fast as the plan allows where that is slower
    coingecko_poll_interval_s: float | None = Field(None, gt=0)
    coingecko_plan: Literal["keyless", "demo", "basic", "analyst", "lite", "pro"] = "keyless"
    coingecko_api_key: SecretStr | None = None

    # where the venues are: None means the dataset's own (the simulator for sim, the public hosts for live)
    coinbase_ws_url: SocketUrl | None = None
    coinbase_rest_url: HttpUrl | None = None
    coingecko_rest_url: HttpUrl | None = None

    # ports of the embedded stack, all on 127.0.0.1
    host: Literal["127.0.0.1"] = "127.0.0.1"
    postgres_port: Port = 25432
    kafka_port: Port = 25092
    kafka_controller_port: Port = 25093
    s3_port: Port = 25080
    airflow_port: Port = 25800
    airflow_log_port: Port = 25793
    airflow_trigger_log_port: Port = 25794
    airflow_scheduler_health_port: Port = 25974
    simulator_ws_port: PortOrAny = 25100
    simulator_rest_port: PortOrAny = 25101
    producer_coinbase_metrics_port: Port = 25201
    producer_coingecko_metrics_port: Port = 25202

    # another deployment's endpoints; unused when embedded
    kafka_bootstrap_servers: str | None = None
    postgres_host: str | None = None
    s3_endpoint_url: HttpUrl | None = None
    lake_bucket: str = "lake"
    aws_region: str = "us-east-1"

    # the stream
    bronze_trigger_s: int = Field(30, ge=1)
    live_trigger_s: int = Field(10, ge=1)
    max_offsets_per_trigger: int = Field(500_000, ge=1)
    spark_master: str = "local[2]"
    spark_driver_memory: str = Field("1g", pattern=r"^[1-9][0-9]*[kmgt]$")
    # added to the JVM's command line of every Spark driver
    spark_driver_java_options: str = ""
    # folder of the streams' checkpoints; None means <home>/checkpoints
    checkpoint_folder: str | None = None

    # feeds
    feed_queue_messages: int = Field(120_000, ge=100)
    feed_silence_s: float = Field(15.0, gt=0)
    # a feed on the broker's machine leaves, loudly, when less disk than this is free
    minimum_free_disk_bytes: int = Field(2 * 1024**3, ge=0)
    kafka_retention_hours: int = Field(168, ge=72)
    kafka_retention_bytes: int = Field(8 * 1024**3, ge=1024**2)

    # measures
    change_tolerance_s: int = Field(90, ge=0, le=936)
    movers_per_direction: int = Field(5, ge=1, le=50)
    publish_days: int = Field(30, ge=1)

    # where alerts are posted (a JSON webhook); None means the log only
    alert_url: HttpUrl | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, environment, .env, then stack.json."""
        return init_settings, env_settings, dotenv_settings, StackFile(settings_cls)

    @field_validator("products", "vs_currencies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("products")
    @classmethod
    def _known_products(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = {name for name, product in PRODUCTS.items() if "coinbase_exchange" in product.names}
        unknown = [product for product in value if product not in known]
        if unknown or not value:
            wrong = f"unknown product {', '.join(unknown)}" if unknown else "at least one product is needed"
            raise ValueError(f"{wrong}; known: {', '.join(sorted(known))}")
        return value

    @field_validator("vs_currencies")
    @classmethod
    def _known_currencies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [currency for currency in value if currency not in VS_CURRENCIES]
        if unknown or not value:
            wrong = f"unknown currency {', '.join(unknown)}" if unknown else "at least one currency is needed"
            raise ValueError(f"{wrong}; known: {', '.join(sorted(VS_CURRENCIES))}")
        return value

    @model_validator(mode="after")
    def _home_is_absolute(self) -> Settings:
        if not self.home.is_absolute():
            object.__setattr__(self, "home", (PROJECT_FOLDER / self.home).resolve())
        return self

    # names that carry the dataset, so that two datasets never meet
    @property
    def topic_prefix(self) -> str:
        """`sim.`: put before every topic name."""
        return f"{self.dataset}."

    @property
    def postgres_database(self) -> str:
        """The dataset's own database."""
        return f"marketflow_{self.dataset}"

    def namespace(self, layer: str) -> str:
        """Iceberg namespace of a layer: `sim_silver`."""
        return f"{self.dataset}_{layer}"

    @property
    def warehouse(self) -> str:
        """Root of the lake's files."""
        return f"s3://{self.lake_bucket}/warehouse"

    @property
    def checkpoints(self) -> str:
        """Folder of this dataset's streaming checkpoints. A checkpoint is data: losing it loses exactly-once."""
        root = self.checkpoint_folder or f"file://{self.home}/checkpoints"
        return f"{root}/{self.dataset}"

    @property
    def published_window(self) -> timedelta:
        """How far back PostgreSQL holds prices and gold; a replay's captures are as old as they are, so all of them."""
        return timedelta(days=36_500 if self.dataset == "replay" else self.publish_days)

    # endpoints
    @property
    def listen_host(self) -> str:
        """Where our own servers listen: this machine alone; in a container all of its interfaces, for the others."""
        return "0.0.0.0" if self.deployment == "compose" else self.host  # noqa: S104 - a container's own network

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's address."""
        return self.kafka_bootstrap_servers or f"{self.host}:{self.kafka_port}"

    @property
    def s3_endpoint(self) -> str | None:
        """The S3 API's address; None on AWS, where the SDK finds it."""
        if self.deployment == "aws":
            return self.s3_endpoint_url
        return self.s3_endpoint_url or f"http://{self.host}:{self.s3_port}"

    @property
    def venue_urls(self) -> dict[str, str]:
        """`coinbase_ws`, `coinbase_rest`, `coingecko_rest` for this dataset."""
        if self.dataset == "live":
            public = {
                "coinbase_ws": "wss://ws-feed.exchange.coinbase.com",
                "coinbase_rest": "https://api.exchange.coinbase.com",
                "coingecko_rest": "https://pro-api.coingecko.com/api/v3"
                if self.coingecko_plan in ("basic", "analyst", "lite", "pro")
                else "https://api.coingecko.com/api/v3",
            }
        else:
            ws, rest = (f"{self.host}:{port}" for port in (self.simulator_ws_port, self.simulator_rest_port))
            public = {
                "coinbase_ws": f"ws://{ws}/coinbase_exchange",
                "coinbase_rest": f"http://{rest}/coinbase_exchange",
                "coingecko_rest": f"http://{rest}/coingecko/api/v3",
            }
        asked = {
            "coinbase_ws": self.coinbase_ws_url,
            "coinbase_rest": self.coinbase_rest_url,
            "coingecko_rest": self.coingecko_rest_url,
        }
        return {name: asked[name] or url for name, url in public.items()}

    # secrets
    @cached_property
    def secrets(self) -> dict[str, str]:
        """The generated secrets of this home, overlaid by MARKETFLOW_SECRET_<NAME> variables."""
        path = self.home / "secrets.json"
        stored = dict(json.loads(path.read_text())) if path.exists() else {}
        prefix = "MARKETFLOW_SECRET_"
        return stored | {k.removeprefix(prefix).lower(): v for k, v in os.environ.items() if k.startswith(prefix)}

    def secret(self, name: str) -> str:
        """One secret, or a ConfigurationError that says how secrets come to be."""
        try:
            return self.secrets[name]
        except KeyError:
            raise ConfigurationError(
                f"no secret {name!r} in {self.home}/secrets.json: run `make up` (embedded) "
                f"or set MARKETFLOW_SECRET_{name.upper()}"
            ) from None

    def dsn(self, role: str = "marketflow_writer", database: str | None = None) -> str:
        """Libpq connection string. Roles: postgres, marketflow_writer, marketflow_reader, iceberg, airflow."""
        host = self.postgres_host or self.host
        password = self.secret(f"postgres_{role}")
        return f"postgresql://{role}:{password}@{host}:{self.postgres_port}/{database or self.postgres_database}"


def load(**overrides: Any) -> Settings:
    """Read and check the settings; a wrong one, or a name that is none, becomes one line that names it."""
    _refuse_unknown_names()
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(sentence(error, "MARKETFLOW_")) from None
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"stack.json of MARKETFLOW_HOME is not JSON: {error}") from None


def sentence(error: ValidationError, prefix: str) -> str:
    """The first thing that is wrong, by the variable's name."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    given = first.get("input")
    shown = ",".join(map(str, given)) if isinstance(given, list | tuple) else given
    return f"{prefix}{name.upper()}: {first['msg'].removeprefix('Value error, ')} (got {shown!r})"


def _refuse_unknown_names() -> None:
    """A misspelt name would leave the default in force without a word."""
    known = {f"MARKETFLOW_{name.upper()}" for name in Settings.model_fields}
    file = PROJECT_FOLDER / ".env"
    for where, names in (("the environment", os.environ), (".env", dotenv_values(file) if file.exists() else {})):
        for name in names:
            if name.startswith("MARKETFLOW_") and name not in known and not name.startswith(_OTHER_NAMES):
                close = difflib.get_close_matches(name.removeprefix("MARKETFLOW_").lower(), Settings.model_fields, n=1)
                hint = f"did you mean MARKETFLOW_{close[0].upper()}?" if close else ".env.example lists them"
                raise ConfigurationError(f"{name} of {where} is no setting of marketflow; {hint}")
