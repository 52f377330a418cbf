"""Which ends of services are told of, from what their wrappers wrote down: every one once, and until all is well."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from marketflow import settings_words
from marketflow.quality.watch import (
    AIRFLOW_PATIENCE_S,
    WELL_AFTER_S,
    Memory,
    Patience,
    ended,
    read_memory,
    write_memory,
    wrong_settings,
)
from marketflow.services.backend import ServiceState, ServiceStatus
from marketflow.services.state import State
from marketflow.settings import Settings

LONG = WELL_AFTER_S + 1


def told(memory: Memory, crashes: int, state: ServiceState = "running", uptime_s: float | None = LONG) -> list[str]:
    status = ServiceStatus("kafka", state, since=datetime.now(UTC), uptime_s=uptime_s)
    times = tuple(1_800_000_000.0 + number for number in range(crashes))
    crash = State(crashes=times, crash="ended by signal 9 after 312.0 s")
    return [alert.key for alert in ended({"kafka": status}, {"kafka": crash}, memory)]


def test_what_happened_before_the_first_look_of_all_is_not_told() -> None:
    memory = Memory()
    assert told(memory, 7) == []
    assert told(memory, 7) == []


def test_an_end_is_told_until_the_service_has_run_for_half_a_minute() -> None:
    memory = Memory()
    told(memory, 0)
    assert told(memory, 1, uptime_s=2.0) == ["ended:kafka"]
    assert told(memory, 1, uptime_s=29.0) == ["ended:kafka"]
    assert told(memory, 1) == []
    assert told(memory, 2, uptime_s=2.0) == ["ended:kafka"], "the next end is another one"


def test_an_end_that_was_mended_between_two_looks_is_told_once_all_the_same() -> None:
    memory = Memory()
    told(memory, 0)
    assert told(memory, 1, uptime_s=LONG) == ["ended:kafka"]
    assert told(memory, 1, uptime_s=LONG) == []


def test_a_service_that_fails_again_and_again_stays_one_alert() -> None:
    memory = Memory()
    told(memory, 0)
    looks = [told(memory, 1 + turn // 2, "backoff" if turn % 2 else "running", 1.0) for turn in range(8)]
    assert looks == [["ended:kafka"]] * 8


def test_a_service_that_is_stopped_by_hand_is_nobodys_worry_any_more() -> None:
    memory = Memory()
    told(memory, 0)
    assert told(memory, 1, "backoff", None) == ["ended:kafka"]
    assert told(memory, 1, "stopped", None) == []


def test_the_alert_says_when_how_and_what_to_run() -> None:
    memory = Memory(crashes={"kafka": 0.0})
    status = ServiceStatus("kafka", "backoff", detail="1 failure in a row, next start in 1 s")
    crash = State(crashes=(1_800_000_000.0,), crash="ended by signal 9 after 312.0 s")
    (alert,) = ended({"kafka": status}, {"kafka": crash}, memory)
    assert alert.cause == (
        "At 2027-01-15 08:00:00 UTC: ended by signal 9 after 312.0 s. "
        "It is backoff (1 failure in a row, next start in 1 s)."
    )
    assert alert.command == "marketflow logs kafka"


def test_an_end_in_the_watchs_own_absence_is_told_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "alerts" / "watch.json"
    memory = read_memory(path)
    told(memory, 3)
    write_memory(path, memory)
    assert told(read_memory(path), 4) == ["ended:kafka"]


def test_a_part_of_airflow_is_told_of_after_two_minutes_and_a_short_illness_is_not() -> None:
    patience, sick, well = Patience(), {"scheduler": "unhealthy", "triggerer": "healthy"}, {"scheduler": "healthy"}
    assert patience.unwell(sick, 100.0) == []
    assert patience.unwell(sick, 100.0 + AIRFLOW_PATIENCE_S - 1) == []
    (alert,) = patience.unwell(sick, 100.0 + AIRFLOW_PATIENCE_S)
    assert (alert.key, alert.command) == ("airflow:scheduler", "marketflow logs airflow-scheduler")
    database = {"metadatabase": "unhealthy"}  # is no service of its own
    assert Patience({"metadatabase": 0.0}).unwell(database, 200.0)[0].command == "marketflow logs postgres"
    assert patience.unwell(well, 300.0) == []
    assert patience.unwell(sick, 310.0) == [], "its patience begins anew"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"MARKETFLOW_SOURCES=coinbase_exchange,nonsense", "unknown source nonsense"),
        # what the service itself was started with
        (b"MARKETFLOW_POSTGRES_PORT=many", "MARKETFLOW_POSTGRES_PORT"),
        (b"MARKETFLOW_ALERT_URL=nowhere", "MARKETFLOW_ALERT_URL"),
        ("MARKETFLOW_COMMENT=größer".encode("latin-1"), ".env cannot be read: "),
    ],
)
def test_a_line_of_dotenv_that_no_new_process_could_begin_with_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, line: bytes, words: str
) -> None:
    monkeypatch.setenv("MARKETFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("MARKETFLOW_POSTGRES_PORT", "25432")
    monkeypatch.setenv("MARKETFLOW_ALERT_URL", "http://127.0.0.1:1/")
    monkeypatch.setattr(settings_words, "PROJECT_FOLDER", tmp_path)
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    assert wrong_settings() == []
    (tmp_path / ".env").write_bytes(line)
    (alert,) = wrong_settings()
    assert alert.key == "settings:wrong"
    assert words in alert.cause
