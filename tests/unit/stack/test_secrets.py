"""Secrets are made once, readable by their owner alone, and usable where they are used."""

from __future__ import annotations

import json
import stat
import uuid
from pathlib import Path

import pytest

from marketflow.settings import load
from marketflow.stack import secrets


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    settings = load(home=tmp_path)
    first = json.loads(secrets.ensure(settings).read_text())
    assert json.loads(secrets.ensure(load(home=tmp_path)).read_text()) == first
    assert set(first) == set(secrets.NAMES)
    assert len(set(first.values())) == len(first)
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_new_kind_of_secret_is_added_to_those_that_are_there(tmp_path: Path) -> None:
    secrets.write_private(tmp_path / "secrets.json", json.dumps({"postgres_airflow": "kept"}))
    settings = load(home=tmp_path)
    secrets.ensure(settings)
    assert settings.secret("postgres_airflow") == "kept"
    assert settings.secret("s3_secret_key")


def test_kafkas_cluster_id_never_looks_like_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter([uuid.UUID(bytes=b"\xf8" + bytes(15)), uuid.UUID(bytes=b"\x01" + bytes(15))])
    monkeypatch.setattr(uuid, "uuid4", lambda: next(drawn))
    assert not secrets._new("kafka_cluster_id").startswith("-")
    assert next(drawn, None) is None, "the first, which begins with a dash, was drawn again"
