"""What `marketflow venue new` writes: the files of a venue, from the templates beside it, and its registry entries.

A template is a text with $name and its kin, named so that no tool takes it for code. An entry goes above the line of a
registry that says `venue new: …`; what no such line can hold is told to the person (by_hand.txt).
"""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from string import Template
from typing import Literal

from marketflow.contracts.sources import CCXT_PREFIX, SOURCES
from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER

Kind = Literal["feed", "prices"]

TEMPLATES = Path(__file__).parent
LONGEST_NAME = 20  # with a longer one the lines of the templates would be too long
_COMMON = (
    ("venue.py", "marketflow/venues/$name.py"),
    ("judge.py", "marketflow/verify/wire_$name.py"),
    ("simulator_wire.py", "marketflow/simulator/${name}_wire.py"),
    ("simulator_rest.py", "marketflow/simulator/${name}_rest.py"),
    ("test.py", "tests/unit/venues/test_$name.py"),
    ("capture.ndjson", "tests/fixtures/captures/$name/example.ndjson"),
)
FILES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "feed": (
        *_COMMON,
        ("history.py", "marketflow/venues/history_$name.py"),
        ("simulator_socket.py", "marketflow/simulator/${name}_socket.py"),
    ),
    "prices": _COMMON,
}
_LINE = 120
# modules and names that the templates have beside the new one
_USED = sys.stdlib_module_names | {"venues", "wire", "market", "listing", "frame", "prepared", "pytest", "msgspec"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written: new files, and registries as they will be; `by_hand` is for the person."""

    name: str
    files: dict[Path, str]
    registries: dict[Path, str]
    by_hand: str

    def write(self) -> None:
        """All of it; nothing is read any more, so that nothing is written by halves of two states."""
        for path, text in (self.files | self.registries).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def render(self, *, written: bool) -> str:
        """For a person: what is new, what changed, what is left to do."""
        lines = [f"{'wrote' if written else 'would write'}:"]
        lines += [f"  new      {path.relative_to(PROJECT_FOLDER)}" for path in self.files]
        lines += [f"  entry in {path.relative_to(PROJECT_FOLDER)}" for path in self.registries]
        lines += ["", "to do by hand, when it is time for it:", self.by_hand.rstrip(), ""]
        lines += [f"next: pytest -q tests/unit/venues/test_{self.name}.py, then CONTRIBUTING.md, A new venue"]
        return "\n".join(lines)


def planned(name: str, kind: Kind, today: date) -> Plan:
    """The plan for a new venue.

    Raises:
        ConfigurationError: the name cannot be one or is taken, or a registry has lost its `venue new` line.
    """
    _refuse(name)
    values = _values(name, today)
    files = {
        PROJECT_FOLDER / _filled(place, values): _with_sorted_imports(_template(kind, part, values))
        for part, place in FILES[kind]
    }
    taken = [str(path.relative_to(PROJECT_FOLDER)) for path in files if path.exists()]
    if taken:
        raise ConfigurationError(f"NAME: {name!r} is taken: {', '.join(taken)}")
    registries: dict[Path, str] = {}
    for section in _template(kind, "registries", values).split("== ")[1:]:
        head, entry = section.split("\n", 1)
        place, _, mark = head.partition(" @ ")
        path = PROJECT_FOLDER / place
        registries[path] = _entered(place, registries.get(path) or path.read_text(), mark, entry)
    return Plan(name, files, registries, _template(kind, "by_hand", values))


def _refuse(name: str) -> None:
    fits = re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) is not None and len(name) <= LONGEST_NAME
    if not fits or keyword.iskeyword(name) or name in _USED or name.startswith(CCXT_PREFIX):
        raise ConfigurationError(
            f"NAME: {name!r} cannot be a venue's: lower case letters, digits and single underscores, a letter first, "
            f"at most {LONGEST_NAME} characters, no word or module of Python's own, no {CCXT_PREFIX}…"
        )
    known = {*SOURCES, *(source.venue for source in SOURCES.values())}
    if name in known:
        raise ConfigurationError(f"NAME: {name!r} is there already; known: {', '.join(sorted(known))}")
    if not (PROJECT_FOLDER / "tests" / "unit" / "venues").is_dir():
        raise ConfigurationError(f"{PROJECT_FOLDER} has no tests: a venue is added in a checkout of the project")


def _values(name: str, today: date) -> dict[str, str]:
    ports = re.findall(r"producer_\w+_metrics_port: Port = (\d+)", _text("marketflow/settings.py"))
    return {
        "name": name,
        "upper": name.upper(),
        "camel": "".join(part.capitalize() for part in name.split("_")),
        "short": name.replace("_", "-"),
        "host": name.replace("_", "-"),
        "port": str(max(map(int, ports)) + 1),
        "date": today.isoformat(),
    }


def _text(place: str) -> str:
    return (PROJECT_FOLDER / place).read_text()


def _filled(text: str, values: dict[str, str]) -> str:
    return Template(text).substitute(values)


def _template(kind: Kind, part: str, values: dict[str, str]) -> str:
    return _filled((TEMPLATES / kind / f"{part}.txt").read_text(), values)


def _with_sorted_imports(text: str) -> str:
    """The text with its one-line imports of ours in the formatter's order, which depends on the new name."""
    lines = text.splitlines(keepends=True)
    ours = [index for index, line in enumerate(lines) if re.match(r"from marketflow[.\w]* import [^(]", line)]
    if not ours or ours[-1] - ours[0] != len(ours) - 1:
        return text
    there = [_with_sorted_names(line) for line in lines[ours[0] : ours[-1] + 1]]
    return "".join((*lines[: ours[0]], *sorted(there, key=lambda line: line.split()[1]), *lines[ours[-1] + 1 :]))


def _with_sorted_names(line: str) -> str:
    head, names = line.rstrip().split(" import ")
    return f"{head} import {', '.join(sorted(names.split(', ')))}\n" if names.islower() else line


def _entered(place: str, text: str, mark: str, entry: str) -> str:
    """The registry's text with the entry above its mark, or with a module imported."""
    if mark.startswith("import "):
        return _imported(place, text, mark.removeprefix("import "), entry.split())
    lines = text.splitlines(keepends=True)
    found = [index for index, line in enumerate(lines) if line.rstrip().removesuffix(" -->").endswith(f"new: {mark}")]
    if len(found) != 1:
        raise ConfigurationError(f"{place}: no line, or more than one, says `venue new: {mark}`")
    return "".join((*lines[: found[0]], entry, *lines[found[0] :]))


def _imported(place: str, text: str, package: str, names: list[str]) -> str:
    """The text whose `from package import …` names these modules too, in the formatter's shape."""
    pattern = re.compile(rf"^from {re.escape(package)} import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
    match = pattern.search(text)
    if match is None:
        raise ConfigurationError(f"{place}: nothing is imported from {package}")
    there = re.findall(r"\w+", match[1] or match[2])
    everything = sorted({*there, *names})
    line = f"from {package} import {', '.join(everything)}"
    if len(line) > _LINE or match[1]:
        line = f"from {package} import (\n" + "".join(f"    {each},\n" for each in everything) + ")"
    return text[: match.start()] + line + text[match.end() :]
