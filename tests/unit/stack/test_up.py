"""A home that never ran has no secrets when `up` begins: they come before anything that holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

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
