"""The simulator's own knobs, read from MARKETFLOW_SIMULATOR_* variables beside marketflow.settings."""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from marketflow.contracts.products import PRODUCTS
from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import CommaSeparated, Settings
from marketflow.settings_words import dotenv_file, sentence, unread
from marketflow.simulator.faults import VENUES, FaultKind, impossible
from marketflow.simulator.listings import USD_PER_UNIT

MIB = 1024**2


class SimulatorConfiguration(BaseSettings):
    """What market is made and how its servers behave.

    `rate` is trades per second and product once the tape has ended; `faults` maps a fault's name to its probability
    per trade (per request for HTTP faults); a name may be narrowed to one venue: `coingecko:http_429`.
    """

    model_config = SettingsConfigDict(
        env_prefix="MARKETFLOW_SIMULATOR_",
        env_file=PROJECT_FOLDER / ".env",
        frozen=True,
        env_ignore_empty=True,
        extra="ignore",
    )

    # None means the products and currencies that the platform is set to collect
    products: CommaSeparated | None = None
    vs_currencies: CommaSeparated | None = None
    rate: float = Field(3.0, gt=0, le=100_000)
    seed: int = 20_260_707
    tape: bool = True
    faults: dict[str, float] = Field(default_factory=dict)
    # a batch of trades is made, synced to the truth and sent this often
    tick_ms: int = Field(100, ge=1, le=1000)
    # the market opens when every product has a listener, at the latest after this long: a feed that starts with the
    # exchange then misses nothing. 0 opens it at once
    wait_for_listener_s: float = Field(0.0, ge=0)
    # the products that are waited for, where not everything that is listed is collected
    wait_for_products: CommaSeparated | None = None
    # CoinGecko's keyless limit; a call with any key is not counted. 0 means no limit
    keyless_calls_per_minute: int = Field(30, ge=0)
    # whether these want a key, as the real ones do; any text is one
    coincap_key_required: bool = False
    cryptocompare_key_required: bool = False
    # CryptoCompare answers calls beyond it with status 200 and an error's body. 0 means no limit
    cryptocompare_calls_per_minute: int = Field(300, ge=0)
    # a reader with more unread bytes than this is cut, as the exchange cuts slow consumers
    slow_reader_bytes: int = Field(32 * MIB, ge=1024)
    subscribe_within_s: float = Field(5.0, gt=0)

    @field_validator("products", "vs_currencies", "wait_for_products", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("products")
    @classmethod
    def _known_products(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        unknown = [product for product in value or () if product not in PRODUCTS]
        if unknown:
            raise ValueError(f"unknown product {', '.join(unknown)}; known: {', '.join(sorted(PRODUCTS))}")
        return value

    @field_validator("faults")
    @classmethod
    def _known_faults(cls, value: dict[str, float]) -> dict[str, float]:
        for name, probability in value.items():
            venue, _, kind = name.rpartition(":")
            if kind not in {fault.value for fault in FaultKind} or not 0 <= probability <= 1:
                raise ValueError(f"{name}={probability}: wants a known fault and a probability from 0 to 1")
            if venue and venue not in VENUES:
                raise ValueError(f"{name}: venue is one of {', '.join(VENUES)}")
            if venue and impossible(FaultKind(kind), venue):
                raise ValueError(f"{name}: {impossible(FaultKind(kind), venue)}")
        return value


def load(**overrides: Any) -> SimulatorConfiguration:
    """Read and check; a wrong value becomes one line that names its variable. An override of None is left out."""
    dotenv_file()  # one that cannot be read is said here
    try:
        return SimulatorConfiguration(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise ConfigurationError(sentence(error, "MARKETFLOW_SIMULATOR_")) from None
    except SettingsError as error:
        raise ConfigurationError(f'{unread(error, "MARKETFLOW_SIMULATOR_")}, such as {{"drop": 0.001}}') from None


def check(settings: Settings) -> None:
    """Refuse, before anything is started, what the simulator would refuse.

    Raises:
        ConfigurationError: one of its knobs is wrong, or a currency is none that it quotes.
    """
    currencies = load().vs_currencies or settings.vs_currencies
    unknown = [currency for currency in currencies if currency not in USD_PER_UNIT]
    if unknown:
        raise ConfigurationError(
            f"MARKETFLOW_VS_CURRENCIES: the simulator quotes no {', '.join(unknown)}; "
            f"it knows {', '.join(USD_PER_UNIT)}"
        )
