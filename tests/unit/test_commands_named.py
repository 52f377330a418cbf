"""Every `marketflow …` that documents, runbooks, alerts and errors tell people to type is a command that there is."""

from __future__ import annotations

import ast
import re

from typer.core import TyperGroup
from typer.main import get_command

from marketflow.catalog.queries import saved_queries
from marketflow.cli import app
from marketflow.paths import PROJECT_FOLDER

PLACES = ("*.md", "docs/**/*.md", "dags/*.py", "plugins/**/*.py", "marketflow/**/*.py", "include/sql/**/*.sql")
# in quotes of code, or a line of an example; two words at most are looked at
NAMED = re.compile(r"(?:`|^ *(?:\$ )?(?:\.venv/bin/)?)marketflow (\w[\w-]*)(?: +(\w[\w-]*)(?![\w-]))?", re.MULTILINE)


# names of Airflow's hook, and of the stream in Spark and in PostgreSQL
NO_COMMANDS = ("marketflow services", "marketflow stream ", "marketflow stream, process ")


def named() -> dict[tuple[str, str], str]:
    """(word, next word or nothing) → a place that has it."""
    found = {}
    for pattern in PLACES:
        for file in sorted(PROJECT_FOLDER.glob(pattern)):
            text = file.read_text()
            texts = [text, *(strings(text) if file.suffix == ".py" else ())]
            for match in (match for each in texts for match in NAMED.finditer(each)):
                found[match[1], match[2] or ""] = str(file.relative_to(PROJECT_FOLDER))
    return found


def strings(source: str) -> list[str]:
    """A program's strings that are a command as a whole: what an alert gives; of an f-string what stands first."""
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    commands = (text for text in constants if isinstance(text, str) and text.startswith("marketflow "))
    return [text for text in commands if text not in NO_COMMANDS]


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


def test_what_is_named_is_found() -> None:
    source = 'command = f"marketflow logs {name}"\nother = {"hung": "marketflow sources"}\n'
    assert strings(source) == ["marketflow logs ", "marketflow sources"]
    for text in ("`marketflow start market-stream`", "  marketflow logs kafka\n", *strings(source)):
        assert NAMED.search(text)
