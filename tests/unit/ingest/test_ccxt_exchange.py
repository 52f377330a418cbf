"""What is asked of the library is checked before it runs, and nobody else pays for it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER
from marketflow.settings import Settings, load

LOADED = "import sys, marketflow.ingest.__main__; print(sorted(each for each in sys.modules if 'ccxt' in each))"


def settings(**changes: Any) -> Settings:
    return load(sources=("ccxt",), **{"ccxt_exchanges": ("coinbaseexchange",), **changes})


def refused(**changes: Any) -> str:
    from marketflow.ingest import ccxt_exchange

    with pytest.raises(ConfigurationError) as refusal:
        ccxt_exchange.check(settings(**changes))
    return str(refusal.value)


def test_starting_any_producer_does_not_import_the_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, cwd=PROJECT_FOLDER
    )
    assert done.stdout.strip() == str(["marketflow.venues.ccxt_trades"])


def test_the_library_is_imported_by_one_module() -> None:
    found = [
        str(path.relative_to(PROJECT_FOLDER))
        for folder in ("marketflow", "dags", "plugins", "spark_jobs")
        for path in (PROJECT_FOLDER / folder).rglob("*.py")
        if any(line.lstrip().startswith(("import ccxt", "from ccxt")) for line in path.read_text().splitlines())
    ]
    assert found == ["marketflow/ingest/ccxt_exchange.py"]


def test_an_unknown_exchange_is_refused_with_those_that_are_near() -> None:
    told = refused(dataset="live", ccxt_exchanges=("krakn",))
    assert told.startswith("MARKETFLOW_CCXT_EXCHANGES: the library ccxt knows no exchange 'krakn'; did you mean kraken")


def test_simulated_data_never_meets_an_exchange_that_the_simulator_does_not_speak() -> None:
    assert "the simulator does not speak kraken" in refused(ccxt_exchanges=("kraken",))


def test_options_of_an_exchange_that_is_not_collected_are_refused() -> None:
    told = refused(ccxt_options={"krakken": {"timeout": 5}})
    assert told == "MARKETFLOW_CCXT_OPTIONS: krakken is not among MARKETFLOW_CCXT_EXCHANGES"


def test_in_sim_an_exchange_is_asked_at_the_simulator_unless_its_urls_are_given() -> None:
    from marketflow.ingest import ccxt_exchange

    simulated = settings(simulator_rest_port=4711)
    made = ccxt_exchange.CcxtExchange(simulated, "coinbaseexchange")
    assert made._client.urls["api"]["public"] == "http://127.0.0.1:4711/coinbase_exchange"
    assert made._client.enableRateLimit
    own = {"coinbaseexchange": {"urls": {"api": {"public": "http://127.0.0.1:9/x"}}, "timeout": 5}}
    other = ccxt_exchange.CcxtExchange(settings(ccxt_options=own), "coinbaseexchange")
    assert (other._client.urls["api"]["public"], other._client.timeout) == ("http://127.0.0.1:9/x", 5)
    live = ccxt_exchange.CcxtExchange(settings(dataset="live"), "coinbaseexchange")
    assert live._client.urls["api"]["public"].startswith("https://")


def test_the_source_without_exchanges_and_products_that_nobody_knows_are_refused_with_the_settings() -> None:
    with pytest.raises(ConfigurationError, match="MARKETFLOW_SOURCES: ccxt needs MARKETFLOW_CCXT_EXCHANGES"):
        settings(ccxt_exchanges=())
    with pytest.raises(ConfigurationError, match="MARKETFLOW_CCXT_PRODUCTS: unknown product ABC-XYZ"):
        settings(ccxt_products="ABC-XYZ")


def test_the_source_is_off_in_every_dataset_until_it_is_asked_for() -> None:
    for dataset in ("sim", "live"):
        assert "ccxt" not in {source.name for source in load(dataset=dataset).active_sources}
