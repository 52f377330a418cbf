"""`marketflow venue new`: what it leaves passes every check at once, runs, and never writes over what is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from marketflow.errors import ConfigurationError
from marketflow.paths import PROJECT_FOLDER
from marketflow.venues import scaffold

TODAY = date(2026, 7, 7)
LONGEST = "abcdefghij_klmnopqrs"
NOBODY = "9"  # the port that discards, where nothing listens
# the start of a feed but for the broker's tail, which it would wait for
WITHOUT_BROKER = (
    "import sys; from marketflow.ingest import __main__ as program, tail;"
    "program.read_tail = lambda *_: tail.Tail(); sys.exit(program.main(sys.argv[1:]))"
)


@dataclass
class Checkout:
    """A copy of the project with a new venue in it."""

    folder: Path
    name: str
    kind: str
    told: str

    def run(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            **self.surroundings(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def surroundings(self) -> dict[str, object]:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("MARKETFLOW_", "PYTEST"))
        }
        home = self.folder / ".marketflow"
        home.mkdir(exist_ok=True)
        own = {
            "PYTHONPATH": str(self.folder),
            "MARKETFLOW_HOME": str(home),
            "MARKETFLOW_SECRET_POSTGRES_MARKETFLOW_WRITER": "x",
            "MARKETFLOW_POSTGRES_PORT": NOBODY,
            "MARKETFLOW_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{NOBODY}",
            "MARKETFLOW_SIMULATOR_WS_PORT": NOBODY,
            "MARKETFLOW_SIMULATOR_REST_PORT": NOBODY,
        }
        return {"cwd": self.folder, "env": inherited | own}


def copied(folder: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        **{"cwd": PROJECT_FOLDER, "capture_output": True, "text": True, "check": True},
    ).stdout.splitlines()
    assert len(listed) > 300
    for name in listed:
        if (PROJECT_FOLDER / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT_FOLDER / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=["feed", "prices"])
def checkout(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = copied(tmp_path_factory.mktemp(request.param))
    made = Checkout(folder, "new_venue", request.param, "")
    done = made.run("-m", "marketflow.cli", "venue", "new", made.name, "--kind", made.kind)
    assert done.returncode == 0, done.stderr
    made.told = done.stdout
    return made


def written(checkout: Checkout) -> list[str]:
    return re.findall(r"^  new      (.+)$", checkout.told, re.MULTILINE)


def test_what_is_written_is_what_was_said(checkout: Checkout) -> None:
    new = {path.relative_to(checkout.folder) for path in checkout.folder.rglob("*new_venue*") if path.suffix == ".py"}
    capture = Path("tests/fixtures/captures/new_venue/example.ndjson")
    assert {Path(name) for name in written(checkout)} == new | {capture}
    assert len(new) == (7 if checkout.kind == "feed" else 5)
    assert "new_venue/example.ndjson" in (checkout.folder / "tests/fixtures/captures/README.md").read_text()


def test_the_formatter_and_the_linter_find_nothing(checkout: Checkout) -> None:
    touched = re.findall(r"^  (?:new     |entry in) (.+\.py)$", checkout.told, re.MULTILINE)
    assert len(touched) > len(written(checkout)) + 5
    for arguments in (("check",), ("format", "--check")):
        done = checkout.run("-m", "ruff", *arguments, "--no-cache", *touched)
        assert done.returncode == 0, done.stdout[-3000:]


def test_the_type_checker_finds_nothing_in_the_new_files(checkout: Checkout) -> None:
    cache = PROJECT_FOLDER / ".mypy_cache"
    if cache.is_dir():  # else it takes a minute on a busy machine
        shutil.copytree(cache, checkout.folder / ".mypy_cache")
    files = [name for name in written(checkout) if name.startswith("marketflow/")]
    done = checkout.run("-m", "mypy", *files)
    assert done.stdout.startswith("Success: no issues found"), done.stdout[-3000:]


def test_its_own_tests_and_those_that_hold_all_venues_pass(checkout: Checkout) -> None:
    captures = "tests/unit/verify/test_wire_captures.py::test_judge_and_parser_read_a_capture_alike[example.ndjson]"
    tests = ("tests/unit/venues/test_new_venue.py", captures, "tests/unit/test_settings.py")
    done = checkout.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
    passed = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]
    assert passed is not None
    assert int(passed[1]) >= 20


def test_the_registries_know_it_and_it_is_off_until_it_is_asked_for(checkout: Checkout) -> None:
    done = checkout.run(
        "-c",
        "import json; from marketflow.contracts.sources import SOURCES; from marketflow.venues import PARSERS;"
        "from marketflow.venues.feeds import PROTOCOLS; from marketflow.venues.history import HISTORIES;"
        "from marketflow.venues.polls import POLLS; from marketflow.ingest.quotas import PLANS;"
        "from marketflow.ingest.sniff import KNOWN_VENUES; from marketflow.verify.wire import _READERS;"
        "from marketflow.settings import load; s = load(); n = 'new_venue';"
        "print(json.dumps({'in': [n in each for each in (SOURCES, PARSERS, KNOWN_VENUES, _READERS)],"
        "'feed': [n in PROTOCOLS, n in HISTORIES], 'prices': [n in POLLS, n in PLANS],"
        "'active': n in [each.name for each in s.active_sources], 'rest': s.venue_urls[n + '_rest'],"
        "'port': s.producer_new_venue_metrics_port, 'live': load(dataset='live').venue_urls[n + '_rest']}))",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    assert told.pop("in") == [True] * 4
    assert {kind: told.pop(kind) for kind in ("feed", "prices")} == {
        kind: [kind == checkout.kind] * 2 for kind in ("feed", "prices")
    }
    ports = re.findall(
        r"producer_\w+_metrics_port: Port = (\d+)", (PROJECT_FOLDER / "marketflow/settings.py").read_text()
    )
    assert told == {
        "active": False,
        "rest": f"http://127.0.0.1:{NOBODY}/new_venue",
        "port": max(map(int, ports)) + 1,
        "live": "https://new-venue.invalid",
    }


def test_its_producer_starts_and_says_that_the_venue_does_not_answer(checkout: Checkout) -> None:
    program = ("-c", WITHOUT_BROKER) if checkout.kind == "feed" else ("-m", "marketflow.ingest")
    wanted = "reconnecting" if checkout.kind == "feed" else "no_answer"
    process = subprocess.Popen(
        [sys.executable, *program, checkout.name],
        **checkout.surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        events: Iterator[dict[str, object]] = (json.loads(line) for line in process.stdout)
        starting = next(event for event in events if event["event"] == "starting")
        assert starting["source"] == checkout.name
        said = next(event for event in events if event["event"] == wanted)
        assert "Connect" in str(said)
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0


def test_it_is_refused_a_second_time_and_nothing_changes(checkout: Checkout) -> None:
    before = (checkout.folder / "marketflow/settings.py").read_text()
    done = checkout.run("-m", "marketflow.cli", "venue", "new", checkout.name, "--kind", checkout.kind)
    assert (done.returncode, done.stdout) == (2, "")
    assert "NAME: 'new_venue' is there already; known: binance, binance_prices, " in done.stderr
    assert (checkout.folder / "marketflow/settings.py").read_text() == before


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("coinbase_advanced", "is there already; known: binance, "),
        ("binance_prices", "is there already"),
        ("candles", "is taken: marketflow/venues/candles.py, "),
        ("coinbase", "is taken: marketflow/verify/wire_coinbase.py, marketflow/simulator/coinbase_wire.py, "),
        *(
            (name, "cannot be a venue's")
            for name in ("Kraken", "kra-ken", "2x", "", "a__b", "_a", "class", "json", "ccxt_x")
        ),
        (f"{LONGEST}t", "at most 20 characters"),
    ],
)
def test_a_name_that_is_taken_or_is_none_is_refused(name: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^NAME: '{name}' .*{why}"):
        scaffold.planned(name, "feed", TODAY)


@pytest.mark.parametrize("kind", ["feed", "prices"])
@pytest.mark.parametrize("name", ["kx", LONGEST])
def test_the_shortest_and_the_longest_name_fit_into_a_line(kind: scaffold.Kind, name: str) -> None:
    plan = scaffold.planned(name, kind, TODAY)
    for path, text in (plan.files | plan.registries).items():
        if path.suffix == ".py":
            compile(text, path, "exec")
            assert max(map(len, text.splitlines())) <= 120, path
    assert not any(path.exists() for path in plan.files)
    assert "would write:\n  new      marketflow/venues/" in plan.render(written=False)


def test_a_lost_mark_is_said_by_name() -> None:
    registry = (PROJECT_FOLDER / "marketflow/verify/wire.py").read_text()
    assert "# venue new: reader" in registry
    with pytest.raises(ConfigurationError, match=r"wire\.py: no line, or more than one, says `venue new: reader`"):
        scaffold._entered("wire.py", registry.replace("# venue new: reader", ""), "reader", "x\n")


def test_a_dry_run_writes_nothing() -> None:
    before = subprocess.run(["git", "status", "--short"], cwd=PROJECT_FOLDER, capture_output=True, check=True).stdout
    done = subprocess.run(
        [sys.executable, "-m", "marketflow.cli", "venue", "new", "kx", "--dry-run"],
        **{"cwd": PROJECT_FOLDER, "capture_output": True, "text": True, "check": True},
        env={**os.environ, "PYTHONPATH": str(PROJECT_FOLDER)},
    )
    assert "would write:" in done.stdout
    after = subprocess.run(["git", "status", "--short"], cwd=PROJECT_FOLDER, capture_output=True, check=True).stdout
    assert after == before
