"""Every `marketflow …` that documents, runbooks, alerts and errors tell people to type is a command that there is."""

from __future__ import annotations

import re

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from marketflow.catalog.queries import saved_queries
from marketflow.cli import app
from marketflow.paths import PROJECT_FOLDER

PLACES = ("*.md", "docs/**/*.md", "dags/*.py", "plugins/**/*.py", "marketflow/**/*.py", "include/sql/**/*.sql")
# in quotes of code, or a line of an example; two words at most are looked at
NAMED = re.compile(r"(?:`|^ *(?:\$ )?(?:\.venv/bin/)?)marketflow (\w[\w-]*)(?: +(\w[\w-]*)(?![\w-]))?", re.MULTILINE)
# what alerts and checks give as their command
GIVEN = re.compile(r"(?:command=f?|, )\"marketflow (\w[\w-]*)(?: +(\w[\w-]*)(?![\w-]))?[^\"]*\"")


def named() -> dict[tuple[str, str], str]:
    """(word, next word or nothing) → a place that has it."""
    found = {}
    for pattern in PLACES:
        for file in sorted(PROJECT_FOLDER.glob(pattern)):
            text = file.read_text()
            for match in (*NAMED.finditer(text), *GIVEN.finditer(text)):
                if match[1] != "import":  # `from marketflow import …`, or prose
                    found[match[1], match[2] or ""] = str(file.relative_to(PROJECT_FOLDER))
    return found


def test_every_command_that_is_named_is_there() -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    wrong = {}
    for (word, following), place in named().items():
        command = group.commands.get(word)
        if command is None or (
            isinstance(command, TyperGroup) and following.islower() and following not in command.commands
        ):
            wrong[f"marketflow {word} {following}".strip()] = place
    assert wrong == {}


def test_every_query_that_is_named_is_there() -> None:
    asked = {following: place for (word, following), place in named().items() if word == "sql" and following.islower()}
    assert len(asked) >= 4
    assert {name: place for name, place in asked.items() if name not in saved_queries()} == {}


@pytest.mark.parametrize(
    "text", ["`marketflow start market-stream`", 'command="marketflow up"', "  marketflow logs kafka\n"]
)
def test_what_is_named_is_found(text: str) -> None:
    assert NAMED.search(text) or GIVEN.search(text)
