"""Ports: the recorded or default one where it is free, another and a word about it where it is not."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from marketflow.errors import ConfigurationError
from marketflow.settings import load
from marketflow.stack import ports


def test_a_free_port_is_kept_and_recorded(tmp_path: Path) -> None:
    settings = load(home=tmp_path)
    ports.record(settings)
    recorded = json.loads((tmp_path / "stack.json").read_text())
    assert set(recorded) == set(ports.PORT_FIELDS)
    assert len(set(recorded.values())) == len(recorded)


def test_a_taken_port_is_replaced_and_its_holder_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        (tmp_path / "stack.json").write_text(json.dumps({"kafka_port": taken}))
        notes = ports.record(load(home=tmp_path))
    chosen = json.loads((tmp_path / "stack.json").read_text())["kafka_port"]
    assert chosen != taken
    assert f"kafka_port {taken} is held by pid {os.getpid()} " in "\n".join(notes)
    assert f"using {chosen}" in "\n".join(notes)


def test_a_taken_port_that_was_asked_for_is_refused_with_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        monkeypatch.setenv("MARKETFLOW_KAFKA_PORT", str(taken))
        with pytest.raises(ConfigurationError) as refused:
            ports.record(load(home=tmp_path))
    said = f"MARKETFLOW_KAFKA_PORT of the environment: {taken} is held by pid {os.getpid()} "
    assert str(refused.value).startswith(said)
    assert not (tmp_path / "stack.json").exists()


def test_a_port_of_dotenv_is_asked_for_too_and_a_default_makes_way_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketflow.settings_words.PROJECT_FOLDER", tmp_path)
    settings = load(home=tmp_path)
    settings = load(home=tmp_path, s3_port=settings.kafka_port)
    (tmp_path / ".env").write_text(f"MARKETFLOW_S3_PORT={settings.kafka_port}\n")
    (note,) = ports.record(settings)
    recorded = json.loads((tmp_path / "stack.json").read_text())
    assert recorded["s3_port"] == settings.s3_port
    assert note == f"kafka_port {settings.kafka_port} is s3_port: using {recorded['kafka_port']}"
    assert len(set(recorded.values())) == len(recorded)


def test_one_port_asked_for_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3", "KAFKA"):
        monkeypatch.setenv(f"MARKETFLOW_{name}_PORT", "25999")
    with pytest.raises(ConfigurationError, match=r"25999 is MARKETFLOW_.*_PORT too; each needs its own"):
        ports.record(load(home=tmp_path))
