"""Typed, frozen settings, read and checked once at the edge of a program.

Order of precedence: MARKETFLOW_* environment variables, then `.env` in the project folder, then what `make up`
recorded about this machine in `<home>/stack.json` (ports that were free), then the defaults below.
Secrets that `make up` generated are in `<home>/secrets.json` (mode 0600) and are read when first asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from marketflow.addresses import (
    AlertUrl,
    BucketFolder,
    HttpUrl,
    LineageTarget,
    MetricsTarget,
    SecretsPlace,
    SocketUrl,
)
from marketflow.contracts.products import PRODUCTS, VS_CURRENCIES
from marketflow.contracts.sources import SOURCES, Source
from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings_words import StackFile, all_known, dotenv_file, refuse_unknown_names, sentence, unread

Dataset = Literal["sim", "live", "replay"]
Deployment = Literal["embedded", "compose", "aws"]
CommaSeparated = Annotated[tuple[str, ...], NoDecode]
Port = Annotated[int, Field(ge=1, le=65_535)]
PortOrAny = Annotated[int, Field(ge=0, le=65_535)]

PROMISED_OUTAGE_HOURS = 72
"""How long any part may be away and nothing is lost: what Kafka and the lake's snapshots keep is longer."""


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

    # what is collected: from which sources (None means those that the dataset has without being asked), which products
    sources: CommaSeparated | None = None
    products: CommaSeparated = ("BTC-USD", "ETH-USD", "BTC-USDT", "ETH-USDT")
    vs_currencies: CommaSeparated = ("usd",)
    coingecko_assets: int = Field(100, ge=1, le=10_000)
    # None: every 30 s, or as fast as the plan allows where that is slower
    coingecko_poll_interval_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    coingecko_plan: Literal["keyless", "demo", "basic", "analyst", "lite", "pro"] = "keyless"
    coingecko_api_key: SecretStr | None = None
    binance_prices_poll_interval_s: float = Field(30.0, gt=0, allow_inf_nan=False)
    coincap_assets: int = Field(100, ge=1, le=2_000)
    coincap_poll_interval_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    coincap_plan: Literal["free", "paid"] = "free"
    coincap_api_key: SecretStr | None = None
    cryptocompare_symbols: CommaSeparated = (
        *("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "LTC", "AVAX", "LINK", "DOT", "USDT", "USDC"),
    )
    cryptocompare_poll_interval_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    cryptocompare_plan: Literal["paid"] = "paid"
    cryptocompare_api_key: SecretStr | None = None
    # venue new: poll

    # source ccxt: exchanges by their names in the library, products of each, what the library's classes are made with
    ccxt_exchanges: CommaSeparated = ()
    ccxt_products: CommaSeparated = ("BTC-USD",)
    ccxt_poll_interval_s: float = Field(10.0, gt=0, allow_inf_nan=False)
    ccxt_limit: int = Field(1_000, ge=1)
    ccxt_options: dict[str, dict[str, Any]] = {}

    # where the venues are: None means the dataset's own (the simulator for sim, the public hosts for live)
    coinbase_ws_url: SocketUrl | None = None
    coinbase_rest_url: HttpUrl | None = None
    coinbase_advanced_ws_url: SocketUrl | None = None
    coinbase_advanced_rest_url: HttpUrl | None = None
    binance_ws_url: SocketUrl | None = None
    binance_rest_url: HttpUrl | None = None
    coingecko_rest_url: HttpUrl | None = None
    coincap_rest_url: HttpUrl | None = None
    cryptocompare_rest_url: HttpUrl | None = None
    # venue new: address

    # ports of the embedded stack, all on 127.0.0.1
    host: Literal["127.0.0.1"] = "127.0.0.1"
    postgres_port: Port = 25432
    kafka_port: Port = 25092
    kafka_controller_port: Port = 25093
    s3_port: Port = 25080
    glue_port: Port = 25081
    airflow_port: Port = 25800
    airflow_log_port: Port = 25793
    airflow_trigger_log_port: Port = 25794
    airflow_scheduler_health_port: Port = 25974
    simulator_ws_port: PortOrAny = 25100
    simulator_rest_port: PortOrAny = 25101
    producer_coinbase_metrics_port: Port = 25201
    producer_coingecko_metrics_port: Port = 25202
    producer_binance_metrics_port: Port = 25203
    producer_coinbase_advanced_metrics_port: Port = 25204
    producer_binance_prices_metrics_port: Port = 25205
    producer_coincap_metrics_port: Port = 25206
    producer_cryptocompare_metrics_port: Port = 25207
    producer_ccxt_metrics_port: Port = 25208
    # venue new: metrics port

    # another deployment's endpoints; unused when embedded
    kafka_bootstrap_servers: str | None = None
    postgres_host: str | None = None
    s3_endpoint_url: HttpUrl | None = None
    glue_endpoint_url: HttpUrl | None = None
    lake_bucket: str = "lake"
    aws_region: str = "us-east-1"

    # the crawl: our own, or AWS Glue's crawler under a role of the account; Athena's workgroup proves the tables there
    crawler: Literal["own", "glue"] = "own"
    glue_crawler_role: str | None = None
    athena_workgroup: str = "primary"

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
    feed_silence_s: float = Field(15.0, gt=0, allow_inf_nan=False)
    # a feed on the broker's machine leaves, loudly, when less disk than this is free
    minimum_free_disk_bytes: int = Field(2 * 1024**3, ge=0)
    kafka_retention_hours: int = Field(168, ge=PROMISED_OUTAGE_HOURS)
    kafka_retention_bytes: int = Field(8 * 1024**3, ge=1024**2)

    # a day more than the promised outage, so that who comes back at its end has a day to read what was there
    snapshot_keep_hours: int = Field(PROMISED_OUTAGE_HOURS + 24, gt=PROMISED_OUTAGE_HOURS)

    # runs of Airflow's Dags and the logs of their tasks
    airflow_keep_days: int = Field(30, ge=2)

    # measures
    change_tolerance_s: int = Field(90, ge=0, le=936)
    movers_per_direction: int = Field(5, ge=1, le=50)
    publish_days: int = Field(30, ge=1)
    # a row has 130 columns: the lake has them all, PostgreSQL the newest
    publish_feature_hours: int = Field(24, ge=1)

    # where alerts go: http(s) is a webhook that takes JSON, anything else an address of Apprise's; None: the log only
    alert_url: AlertUrl | None = None

    # the embedded Airflow set up as a production one; None and the defaults cost nothing: docs/production.md
    airflow_auth: Literal["simple", "fab"] = "simple"
    airflow_remote_logs: BucketFolder | None = None
    airflow_secrets: SecretsPlace = "environment"
    airflow_lineage: LineageTarget | None = None
    airflow_metrics: MetricsTarget | None = None

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

    @field_validator(
        *("sources", "products", "vs_currencies", "cryptocompare_symbols", "ccxt_exchanges", "ccxt_products"),
        mode="before",
    )
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        return tuple(value) if isinstance(value, list) else value

    @field_validator("sources")
    @classmethod
    def _known_sources(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else all_known("source", value, SOURCES)

    @field_validator("products", "ccxt_products")
    @classmethod
    def _known_products(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return all_known("product", value, PRODUCTS)

    @field_validator("vs_currencies")
    @classmethod
    def _known_currencies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return all_known("currency", value, VS_CURRENCIES)

    @model_validator(mode="after")
    def _feeds_have_products(self) -> Settings:
        idle = [name for name in self.sources or () if SOURCES[name].by_product and not self.products_of(SOURCES[name])]
        if idle:
            listed = sorted(name for name, product in PRODUCTS.items() if SOURCES[idle[0]].venue in product.names)
            raise ValueError(
                f"MARKETFLOW_SOURCES: {idle[0]} trades none of MARKETFLOW_PRODUCTS ({', '.join(self.products)}); "
                f"it knows {', '.join(listed)}"
            )
        if "ccxt" in (self.sources or ()) and not self.ccxt_exchanges:
            raise ValueError("MARKETFLOW_SOURCES: ccxt needs MARKETFLOW_CCXT_EXCHANGES, such as kraken,bitstamp")
        return self

    @model_validator(mode="after")
    def _crawler_exists(self) -> Settings:
        if self.crawler == "glue" and (self.deployment != "aws" or not self.glue_crawler_role):
            raise ValueError(
                "MARKETFLOW_CRAWLER: glue needs MARKETFLOW_DEPLOYMENT=aws and MARKETFLOW_GLUE_CRAWLER_ROLE; elsewhere "
                "leave it at own, since the embedded Glue API's crawlers find nothing"
            )
        return self

    @model_validator(mode="after")
    def _airflow_is_ours(self) -> Settings:
        """Elsewhere nothing would read these, and a page that all may open would be believed to ask for a name."""
        names = ("airflow_auth", "airflow_remote_logs", "airflow_secrets", "airflow_lineage", "airflow_metrics")
        asked = [name for name in names if getattr(self, name) != type(self).model_fields[name].default]
        if asked and self.deployment != "embedded":
            raise ValueError(
                f"MARKETFLOW_{asked[0].upper()} is for the embedded stack; with MARKETFLOW_DEPLOYMENT="
                f"{self.deployment} Airflow's own variables do it: docs/production.md names them"
            )
        return self

    @model_validator(mode="after")
    def _home_is_absolute(self) -> Settings:
        if not self.home.is_absolute():
            object.__setattr__(self, "home", (PROJECT_FOLDER / self.home).resolve())
        return self

    # what is collected
    def products_of(self, source: Source) -> tuple[str, ...]:
        """The products that are collected from a source."""
        return source.products(self.products)

    @property
    def active_sources(self) -> tuple[Source, ...]:
        """The sources that run: those asked for, else the dataset's own that have something to collect."""
        if self.sources is not None:
            return tuple(SOURCES[name] for name in self.sources)
        mine = [each for each in SOURCES.values() if (each.in_live if self.dataset == "live" else each.in_sim)]
        return tuple(each for each in mine if not each.by_product or self.products_of(each))

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
    def export_prefix(self) -> str:
        """Where the plain exports are in the lake's bucket: `sim/export`; under it `features/product_id=…`."""
        return f"{self.dataset}/export"

    @property
    def checkpoints(self) -> str:
        """Folder of this dataset's streaming checkpoints. A checkpoint is data: losing it loses exactly-once."""
        root = self.checkpoint_folder or f"file://{self.home}/checkpoints"
        return f"{root}/{self.dataset}"

    @property
    def published_window(self) -> timedelta:
        """How far back PostgreSQL holds prices and gold; a replay's captures are as old as they are, so all of them."""
        return timedelta(days=36_500 if self.dataset == "replay" else self.publish_days)

    @property
    def published_features_window(self) -> timedelta:
        """How far back PostgreSQL holds trade features; of a replay all, as of everything else."""
        hours = timedelta(hours=self.publish_feature_hours)
        return self.published_window if self.dataset == "replay" else min(self.published_window, hours)

    @property
    def published_days_window(self) -> timedelta:
        """How far back PostgreSQL holds gold.product_day: all of it, a row a product and day."""
        return timedelta(days=36_500)

    @property
    def snapshot_keep(self) -> timedelta:
        """How long a snapshot of the lake is kept that nobody needs any more, and a file that no snapshot knows."""
        return timedelta(hours=self.snapshot_keep_hours)

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
    def glue_endpoint(self) -> str | None:
        """The Glue API's address; None on AWS, where the SDK finds it."""
        if self.deployment == "aws":
            return self.glue_endpoint_url
        return self.glue_endpoint_url or f"http://{self.host}:{self.glue_port}"

    @property
    def venue_urls(self) -> dict[str, str]:
        """The places of `contracts.sources`, such as `coinbase_ws` and `coingecko_rest`, for this dataset."""
        if self.dataset == "live":
            public = {
                "coinbase_ws": "wss://ws-feed.exchange.coinbase.com",
                "coinbase_rest": "https://api.exchange.coinbase.com",
                "coinbase_advanced_ws": "wss://advanced-trade-ws.coinbase.com",
                "coinbase_advanced_rest": "https://api.coinbase.com/api/v3/brokerage",
                "binance_ws": "wss://data-stream.binance.vision",
                "binance_rest": "https://data-api.binance.vision",
                "coincap_rest": "https://rest.coincap.io/v3",
                "cryptocompare_rest": "https://min-api.cryptocompare.com/data",
                "coingecko_rest": "https://pro-api.coingecko.com/api/v3"
                if self.coingecko_plan in ("basic", "analyst", "lite", "pro")
                else "https://api.coingecko.com/api/v3",
                # venue new: public host
            }
        else:
            ws, rest = (f"{self.host}:{port}" for port in (self.simulator_ws_port, self.simulator_rest_port))
            public = {
                "coinbase_ws": f"ws://{ws}/coinbase_exchange",
                "coinbase_rest": f"http://{rest}/coinbase_exchange",
                "coinbase_advanced_ws": f"ws://{ws}/coinbase_advanced",
                "coinbase_advanced_rest": f"http://{rest}/coinbase_advanced/api/v3/brokerage",
                "binance_ws": f"ws://{ws}/binance",
                "binance_rest": f"http://{rest}/binance",
                "coingecko_rest": f"http://{rest}/coingecko/api/v3",
                "coincap_rest": f"http://{rest}/coincap/v3",
                "cryptocompare_rest": f"http://{rest}/cryptocompare/data",
                # venue new: simulated host
            }
        return {name: getattr(self, f"{name}_url") or url for name, url in public.items()}

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
    refuse_unknown_names(Settings.model_fields)
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise ConfigurationError(sentence(error, "MARKETFLOW_")) from None
    except SettingsError as error:
        raise ConfigurationError(f"{unread(error, 'MARKETFLOW_')}; .env.example has an example") from None


def load_as_a_new_process_would(started_with: Collection[str]) -> Settings:
    """What would be read now by a process without variables of these fields, which this one was started with."""
    file = dotenv_file()
    return load(**{name: value for name in started_with if (value := file.get(f"MARKETFLOW_{name.upper()}"))})
