"""A line of `.env` says which sources there are, and the next round of Dag producers starts and stops by it.

Settings, services and supervisord are the real ones; each service's program is a small one that only lives.
"""

from __future__ import annotations

# before anything of Airflow, which reads its settings when it is imported
from tests import airflow_home  # noqa: F401

# isort: split
from dataclasses import replace

import pytest

from marketflow import settings_words
from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.stack import definitions as stack
from tests.integration.airflow_services_world import services_world
from tests.integration.services_stage import SLEEPER

COINBASE, COINGECKO = "producer-coinbase", "producer-coingecko"


@pytest.fixture
def world(embedded, monkeypatch, tmp_path):
    monkeypatch.setattr("marketflow_airflow.service_round.SETTLED_S", 0.3)
    monkeypatch.setattr(settings_words, "PROJECT_FOLDER", tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    with services_world(embedded, monkeypatch) as built:
        built.services()
        small = {"command": built.stage.definition("small", SLEEPER).command, "wait_for": ()}
        monkeypatch.setattr(
            "marketflow.stack.backend.definitions",
            lambda settings: tuple(
                replace(one, environment=built.stage.environment(**one.environment), **small)
                for one in stack.definitions(settings)
            ),
        )
        yield built


@pytest.fixture
def round_with(world, tmp_path):
    """A round after `.env` was written anew; what runs then, by its process."""
    from marketflow_airflow.services import FeedsOperator

    def once(line):
        (tmp_path / ".env").write_text(f"{line}\n")
        world.round(FeedsOperator)
        return {name: one.pid for name, one in world.backend.status().items() if one.state == "running"}

    return once


def test_a_source_that_a_line_of_dotenv_adds_or_takes_out_is_started_or_stopped_by_the_next_round(world, round_with):
    before = round_with("MARKETFLOW_SOURCES=coinbase_exchange")
    assert set(before) == {"simulator", COINBASE}

    added = round_with("MARKETFLOW_SOURCES=coinbase_exchange,coingecko")
    assert added == {**before, COINGECKO: added[COINGECKO]}, "the others run on"
    assert [event for event, _ in world.events(COINGECKO)] == ["started"]

    with pytest.raises(ConfigurationError, match="MARKETFLOW_SOURCES: unknown source coingeko"):
        round_with("MARKETFLOW_SOURCES=coinbase_exchange,coingeko")
    assert world.pid(COINGECKO) == added[COINGECKO], "a slip of the pen stops nothing"

    assert round_with("MARKETFLOW_SOURCES=coinbase_exchange") == before
    assert [event for event, _ in world.events(COINGECKO)] == ["started", "stopped"]
    assert world.events(COINGECKO)[-1][1] == "It is running, but the configuration has it no longer."
    assert [event for event, _ in world.events(COINBASE)] == ["started"]

    again = round_with("MARKETFLOW_SOURCES=coinbase_exchange,coingecko")
    assert again == {**before, COINGECKO: again[COINGECKO]}
    assert [event for event, _ in world.events(COINGECKO)] == ["started", "stopped", "started"]
