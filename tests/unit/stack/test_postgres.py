"""Binaries of a wheel that the server's user cannot reach are copied to a place it can, once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from marketflow.errors import SetupError
from marketflow.stack import postgres


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of /var/tmp, for a root user whose checkout others cannot pass."""
    monkeypatch.setattr(postgres, "OUTSIDE", tmp_path)
    monkeypatch.setattr(postgres, "_as_root", lambda: True)
    monkeypatch.setattr(postgres, "_passable", lambda _folder: False)
    return tmp_path


def test_the_binaries_of_an_unreachable_checkout_are_copied_once_and_run(outside: Path) -> None:
    folder = postgres.binaries()

    assert folder.is_relative_to(outside)
    assert postgres.binaries() == folder
    assert [path.name for path in outside.iterdir()] == [folder.relative_to(outside).parts[0]]
    answer = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True)
    assert "(PostgreSQL) 18" in answer.stdout


def test_a_copy_that_somebody_else_made_is_not_run(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres.binaries()
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 4711)

    with pytest.raises(SetupError, match="is not a folder of this user alone"):
        postgres.binaries()


def test_a_link_in_the_place_of_the_copy_is_not_followed(outside: Path) -> None:
    copy = postgres.binaries().parents[2]
    elsewhere = copy.rename(outside / "elsewhere")
    copy.symlink_to(elsewhere)

    with pytest.raises(SetupError, match="is not a folder of this user alone"):
        postgres.binaries()


def test_a_copy_whose_files_were_cleaned_away_is_made_again(outside: Path) -> None:
    folder = postgres.binaries()
    (folder / "postgres").unlink()

    assert (postgres.binaries() / "postgres").exists()
