"""The checks of include/sql/postgres/quality: what each file says of itself, and running one on a connection.

A check is a query for rows that should not be. The same file judges a table that readers see and rows on their way
there: `$rows` is the one or the other.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql

from marketflow.contracts.columns import Table, Type
from marketflow.contracts.gold import GOLD_TABLES
from marketflow.errors import ContractError
from marketflow.paths import SQL_FOLDER

FOLDER = SQL_FOLDER / "postgres" / "quality"
SAMPLE_ROWS = 5
# a check that looks longer than this at what was published is itself at fault
TIMEOUT_MS = 60_000
EVERY_GOLD_TABLE = "every gold table"
_IDENTIFIERS = ("rows", "hour_column", "key", "required", "doubles")
_HEADER = re.compile(r"^-- ([A-Z][A-Za-z ]+): ((?:.*)(?:\n-- (?![A-Z][A-Za-z ]+: ).*)*)", re.MULTILINE)
_PARAMETER = re.compile(r"\$(\w+)")
_FIELDS = ("Purpose", "Severity", "Owner", "Subject", "Gate", "A failing row", "What to do", "Parameters", "Grain")

Severity = Literal["hard", "soft"]
# with this begins what ops.quality_result says of a check that could not be asked
UNASKED = "could not be asked: "
Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `name` is its file's, and for a check of every gold table the table's too.

    `gates` says that publication asks it of rows before anybody sees them. `meaning` says what a failing row is,
    `remedy` what to do. `text` is the query; empty where Python judges.
    """

    name: str
    severity: Severity
    owner: str
    subject: str
    gates: bool
    purpose: str
    meaning: str
    remedy: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found. `failing_rows` is None where it could not be judged."""

    check: Check
    checked_at: datetime
    outcome: Literal["passed", "failed", "unjudged"]
    detail: str
    failing_rows: int | None = None
    sample: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The check's."""
        return self.check.name

    @property
    def keeps_rows_out(self) -> bool:
        """Whether a hard check failed."""
        return self.outcome == "failed" and self.check.severity == "hard"

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        plain = asdict(self) | {"name": self.name, "severity": self.check.severity, "owner": self.check.owner}
        del plain["check"]
        return plain


@cache
def sql_checks() -> tuple[Check, ...]:
    """Every check of the folder, a generic one once for each gold table that has what it asks."""
    return tuple(check for path in sorted(FOLDER.glob("*.sql")) for check in read_header(path))


def gates_of(table: Table) -> list[Check]:
    """The checks that rows of this table must pass before they are published."""
    return [check for check in sql_checks() if check.gates and check.subject == table.qualified]


def read_header(path: Path) -> Iterator[Check]:
    """The check of one file; of a file about every gold table one for each, of `$doubles` for each that has some.

    Raises:
        ContractError: the header lacks a field, or says what it may not.
    """
    text = path.read_text()
    header = {name: " ".join(said.split("\n-- ")) for name, said in _HEADER.findall(text)}
    if tuple(header) != _FIELDS:
        raise ContractError(f"{path.name}: its header must say {', '.join(_FIELDS)}, in this order")
    if header["Severity"] not in ("hard", "soft") or header["Gate"] not in ("yes", "no"):
        raise ContractError(f"{path.name}: Severity is hard or soft, Gate is yes or no")
    common: dict[str, Any] = {
        "severity": header["Severity"],
        "gates": header["Gate"] == "yes",
        "purpose": header["Purpose"],
        "meaning": header["A failing row"],
        "remedy": header["What to do"],
        "text": text,
    }
    if header["Subject"] != EVERY_GOLD_TABLE:
        yield Check(path.stem, owner=header["Owner"], subject=header["Subject"], **common)
        return
    for table in GOLD_TABLES:
        if "$doubles" in text and not _doubles(table):
            continue
        yield Check(f"{path.stem}.{table.name}", owner=table.owner, subject=table.qualified, **common)


def run(connection: Connection, check: Check, since: datetime | None, rows: sql.Composable | None = None) -> Result:
    """Ask one check of `rows` (its subject where None), of what is of `since` (aware) or later; all where None."""
    started, now = time.monotonic(), datetime.now(UTC)
    query = sql.SQL(
        "with failing as materialized ({}) select (select count(*) from failing), "
        "(select coalesce(json_agg(first), '[]') from (select * from failing limit {}) as first)"
    ).format(_query(check, rows), sql.Literal(SAMPLE_ROWS))
    found = connection.execute(query, {"since": since or "-infinity"}).fetchone()
    assert found
    count, sample = int(found[0]), tuple(found[1])
    detail = f"{count} failing {'row' if count == 1 else 'rows'}" if count else "no failing row"
    if sample:
        detail += f"; the first: {json.dumps(sample[0], default=str)[:500]}"
    outcome: Literal["passed", "failed"] = "failed" if count else "passed"
    return Result(check, now, outcome, detail, count, sample, time.monotonic() - started)


def unjudged(check: Check, why: str) -> Result:
    """What is said of a check that had nothing to look at."""
    return Result(check, datetime.now(UTC), "unjudged", f"could not be judged: {why}"[:1000])


def unasked(check: Check, why: str) -> Result:
    """What is said of a check that could not be asked: what it reads was away, or it took too long."""
    return Result(check, datetime.now(UTC), "unjudged", f"{UNASKED}{why}"[:1000])


def _doubles(table: Table) -> list[str]:
    return [column.name for column in table.columns if column.type is Type.DOUBLE]


def _query(check: Check, rows: sql.Composable | None) -> sql.Composed:
    table = next((one for one in GOLD_TABLES if one.qualified == check.subject), None)
    names: dict[str, sql.Composable] = {"rows": rows or sql.Identifier(*check.subject.split("."))}
    if table is not None:
        required = [column.name for column in table.columns if not column.nullable]
        names["hour_column"] = sql.Identifier(str(table.hour_column))
        names["key"] = sql.SQL(", ").join(map(sql.Identifier, table.key))
        names["required"] = sql.SQL(", ").join(map(sql.Identifier, required))
        names["doubles"] = sql.SQL(", ").join(map(sql.Identifier, _doubles(table)))
    body = "\n".join(line for line in check.text.splitlines() if not line.lstrip().startswith("--"))
    body = body.replace("%", "%%").replace("{", "{{").replace("}", "}}")
    template: Any = _PARAMETER.sub(lambda at: f"{{{at[1]}}}" if at[1] in _IDENTIFIERS else f"%({at[1]})s", body)
    return sql.SQL(template).format(**names)
