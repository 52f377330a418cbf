"""CONTRIBUTING.md names files that exist, and every registry that a venue is in."""

from __future__ import annotations

import re
import subprocess

from marketflow.paths import PROJECT_FOLDER
from marketflow.venues import scaffold

TEXT = (PROJECT_FOLDER / "CONTRIBUTING.md").read_text()
NAMED = set(re.findall(r"`((?:\.env|[\w./-]+\.(?:py|md|yaml))[\w.]*)`", TEXT))
VENUE = "coinbase_advanced"


def table() -> set[str]:
    """The files that the table of a new venue's files, and the sentence below it, name."""
    section = TEXT.split("### Which files it touches")[1].split("### In which order")[0]
    return set(re.findall(r"`([^`<>]+\.(?:py|yaml|md|example))`", section))


def test_every_file_that_is_named_exists() -> None:
    whole = (NAMED - {"__init__.py"}) | table()
    links = {link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link}
    assert len(whole) > 25
    assert [name for name in sorted(whole | links) if not (PROJECT_FOLDER / name).exists()] == []


def test_the_table_names_every_registry_that_a_venue_is_in() -> None:
    places = ("marketflow", ".env.example", "docker-compose.yaml")
    found = subprocess.run(
        ["git", "grep", "-l", VENUE, "--", *places], cwd=PROJECT_FOLDER, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(found) > 10
    registries = [name for name in found if not name.startswith("marketflow/venues/scaffold/")]
    assert set(registries) - {f"marketflow/venues/{VENUE}.py"} - table() == set()


def test_the_table_names_every_registry_that_the_command_writes_into() -> None:
    for kind in ("feed", "prices"):
        text = (scaffold.TEMPLATES / kind / "registries.txt").read_text()
        places = set(re.findall(r"^== (\S+) @", text, re.MULTILINE))
        assert len(places) >= 9
        assert places - table() == set()
        by_hand = (scaffold.TEMPLATES / kind / "by_hand.txt").read_text()
        assert set(re.findall(r"marketflow/\S+\.py", by_hand)) - table() == set()


def test_every_venue_new_line_is_one_that_the_command_uses() -> None:
    marks = set()
    for kind in ("feed", "prices"):
        text = (scaffold.TEMPLATES / kind / "registries.txt").read_text()
        marks |= set(re.findall(r"^== (\S+) @ (?!import )(.+)$", text, re.MULTILINE))
    places = {place for place, _ in marks}
    lines = {
        (place, mark)
        for place in places
        for mark in re.findall(
            r"(?:#|<!--) venue new: (.+?)(?: -->)?$", (PROJECT_FOLDER / place).read_text(), re.MULTILINE
        )
    }
    assert lines == marks
