"""Ports: the recorded or default one where it is free, another and a word about it where it is not."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

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


def test_a_taken_port_that_was_asked_for_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        monkeypatch.setenv("MARKETFLOW_KAFKA_PORT", str(taken))
        notes = ports.record(load(home=tmp_path))
    assert json.loads((tmp_path / "stack.json").read_text())["kafka_port"] == taken
    assert "MARKETFLOW_KAFKA_PORT asks for it" in "\n".join(notes)
