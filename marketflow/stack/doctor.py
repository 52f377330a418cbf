"""`marketflow doctor`: what is wrong with this machine's stack, and what to do about it."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from marketflow.catalog import render as text
from marketflow.errors import MarketflowError
from marketflow.paths import JARS_FOLDER
from marketflow.settings import Settings
from marketflow.stack import airflow, jars, status
from marketflow.warehouse.connection import connect

# what a finding is called that is no fault of the stack now, and good to know
WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `problem` is None where it is well; `remedy` says what to do otherwise."""

    what: str
    seen: str
    problem: str | None = None
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def _java() -> Iterator[Finding]:
    try:
        program = jars.java()
    except MarketflowError as error:
        yield Finding("java", "none", str(error), "install a Java 17 or 21 runtime")
        return
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)  # noqa: S603 - found by us
    found = re.search(r'version "(\d+)', done.stderr)
    version = found.group(1) if found else "unknown"
    wrong = None if version in ("17", "21") else f"Java {version} is not what Kafka and Spark here run on"
    yield Finding("java", f"{program} {version}", wrong, "set JAVA_HOME to a Java 17 or 21")


def _jars() -> Iterator[Finding]:
    wanted = [line.split("  ", 1)[1] for line in jars.HASH_FILE.read_text().splitlines()]
    missing = [name for name in wanted if not (JARS_FOLDER / name).exists()]
    problem = f"{len(missing)} of {len(wanted)} jars are missing, e.g. {missing[0]}" if missing else None
    yield Finding("jars", f"{len(wanted) - len(missing)} in {JARS_FOLDER.name}/", problem, "run `make setup`")


def _home(settings: Settings) -> Iterator[Finding]:
    secrets = settings.home / "secrets.json"
    if not secrets.exists():
        yield Finding("home", str(settings.home), "nothing was ever started here", "run `make up`")
        return
    mode = stat.S_IMODE(secrets.stat().st_mode)
    problem = None if mode == 0o600 else f"{secrets} has mode {mode:o}: other users can read the secrets"
    yield Finding("secrets", f"mode {mode:o}", problem, f"chmod 600 {secrets}")
    free = shutil.disk_usage(settings.home).free
    short = free < 5 * 1024**3
    yield Finding(
        "disk",
        f"{free / 1024**3:.0f} GiB free",
        "less than 5 GiB are free: producers stop before the disk is full" if short else None,
        "free some, or move MARKETFLOW_HOME",
    )


def _last_error(settings: Settings, service: str) -> str:
    log = settings.home / "logs" / f"{service}.log"
    lines = log.read_text(errors="replace").splitlines()[-400:] if log.exists() else []
    marked = [line for line in lines if re.search(r"error|exception|fatal|refused|marketflow[:_]", line, re.IGNORECASE)]
    return (marked or lines or ["its log is empty"])[-1].strip()[:300]


def _services(settings: Settings) -> Iterator[Finding]:
    try:
        found = status.collect(settings)
    except MarketflowError as error:
        yield Finding("services", "none", str(error), "run `make up`")
        return
    for name, one in found.services.items():
        down = one.state not in ("running", "starting", "stopped")
        problem = f"{name} is {one.state}. Its log's last error: {_last_error(settings, name)}" if down else None
        yield Finding(f"service {name}", one.state, problem, f"`marketflow logs {name}`, then `make up` again")
    for sentence in found.warnings:
        yield Finding(WARNING, sentence)
    for sentence in found.problems:
        if not any(sentence.startswith(f"{name} is") for name in found.services):
            yield Finding(
                "freshness", "", sentence, "`marketflow sql stream`, `marketflow logs market-stream`, Dag advance"
            )


def _airflow(settings: Settings) -> Iterator[Finding]:
    parts = airflow.health(settings)
    sick = {name: state for name, state in parts.items() if state != "healthy"}
    problem = f"Airflow's {', '.join(f'{name} is {state}' for name, state in sick.items())}" if sick else None
    yield Finding("airflow", f"{airflow.base_url(settings)}", problem, "`marketflow logs airflow-scheduler`")


def _locks(settings: Settings) -> Iterator[Finding]:
    # as the writer: PostgreSQL shows a role no more of other roles' sessions than that they are there
    with connect(settings) as connection:
        rows = connection.execute(
            "select distinct a.pid, a.application_name, now() - a.backend_start from pg_locks l "
            "join pg_stat_activity a using (pid) "
            "where l.locktype = 'advisory' and l.granted and a.datname = current_database()"
        ).fetchall()
    # of another role's session PostgreSQL shows neither name nor age
    shown = [
        (name or "another role", f"pid {pid}" + (f", {text.age(age.total_seconds())}" if age else ""))
        for pid, name, age in rows
    ]
    held = ", ".join(f"{name} ({more})" for name, more in shown)
    yield Finding("locks", f"held by {held}" if rows else "none is held")


def examine(settings: Settings) -> list[Finding]:
    """Look at everything in order; what cannot be looked at is itself a finding."""
    found: list[Finding] = []
    checks: list[Callable[[], Iterator[Finding]]] = [_java, _jars, lambda: _home(settings)]
    checks += [lambda: _services(settings), lambda: _airflow(settings), lambda: _locks(settings)]
    for check in checks:
        try:
            found += check()
        except MarketflowError as error:
            found.append(Finding("look", "", str(error), "mend what stands above first"))
        if any(one.problem and one.what in ("home", "services") for one in found):
            break
    return found


def render(findings: list[Finding]) -> str:
    """Problems first, each with its remedy; then what is well, a line each."""
    problems = [one for one in findings if one.problem]
    lines = [f"PROBLEM  {one.problem}\n         do: {one.remedy}" for one in problems]
    lines += [f"WARNING  {one.seen}" for one in findings if one.what == WARNING]
    lines += [f"ok       {one.what}: {one.seen}" for one in findings if not one.problem and one.what != WARNING]
    return "\n".join([*lines, "", f"{len(problems)} problem{'' if len(problems) == 1 else 's'} found"])
