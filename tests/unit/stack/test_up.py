"""What `up` makes sure of before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketflow.errors import ConfigurationError
from marketflow.services.supervisor_client import SupervisorClient
from marketflow.settings import load
from marketflow.stack import up
from marketflow.stack.backend import backend


def test_up_in_an_empty_home_makes_the_secrets_before_it_asks_for_the_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ServicesAreKnownError(Exception):
        pass

    def stop_here(*_: object) -> None:
        raise ServicesAreKnownError

    monkeypatch.setattr(up, "_prepare", stop_here)
    settings = load(home=tmp_path / "home", dataset="sim")

    with pytest.raises(ServicesAreKnownError):
        up.run(settings, lambda _: None)

    assert (tmp_path / "home" / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert "airflow-scheduler" in backend(settings).definitions


def test_up_of_a_second_dataset_in_a_home_where_one_runs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "dataset").write_text("live\n")
    monkeypatch.setattr(SupervisorClient, "is_up", lambda self: True)
    with pytest.raises(ConfigurationError, match="live runs in this home, not sim: `make down` first"):
        up.run(load(home=tmp_path, dataset="sim"), lambda _: None)
    assert (tmp_path / "run" / "dataset").read_text() == "live\n"


@pytest.mark.parametrize(
    ("sources", "stopped", "why"),
    [
        (None, set(), None),
        (None, {"producer-coinbase"}, None),
        (None, {"market-stream"}, "market-stream is not to run"),
        (None, {"simulator"}, "the simulated exchange is not to run"),
        ("coingecko,binance", {"producer-coingecko"}, "no source that is asked for prices"),
        ("coinbase_exchange,binance", set(), "no source that is asked for prices"),
        ("coinbase_exchange,binance_prices", set(), None),
    ],
)
def test_up_waits_for_live_rows_only_where_some_can_come(
    tmp_path: Path, sources: str | None, stopped: set[str], why: str | None
) -> None:
    chosen = {} if sources is None else {"sources": sources}
    settings = load(home=tmp_path, dataset="sim", **chosen)
    started = {"market-stream", "simulator", *(source.service for source in settings.active_sources)} - stopped
    told = up.why_no_rows(settings, started)
    assert told is None if why is None else (told or "").startswith(why)
