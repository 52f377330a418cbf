"""The saved queries of include/sql/, and running one statement on Postgres or on the lake.

A query's header says its purpose, parameters with defaults (`-- Parameters: product=BTC-USD, rows=20`) and grain.
Parameters are written `$name` in the file and are always bound, never pasted.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketflow.contracts.gold import BAR_INTERVALS_S
from marketflow.contracts.products import PRODUCTS
from marketflow.errors import ConfigurationError, MarketflowError
from marketflow.paths import SQL_FOLDER
from marketflow.settings import Settings

_FOLDERS = {"postgres": SQL_FOLDER / "postgres" / "saved", "lake": SQL_FOLDER / "lake"}
# what a parameter of this name may be, in every query
_KNOWN = {"product": PRODUCTS.keys(), "bar": BAR_INTERVALS_S.keys()}
_PARAMETER = re.compile(r"\$([a-z_]+)")


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """One saved query: where it runs, what it is for, its parameters' defaults, its text."""

    name: str
    engine: str
    purpose: str
    parameters: dict[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Result:
    """Column names and rows of one statement."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def _read(path: Path, engine: str) -> SavedQuery:
    text = path.read_text()
    header = dict(re.findall(r"^-- (Purpose|Parameters|Grain): (.*)$", text, re.MULTILINE))
    given = header["Parameters"].rstrip(".")
    pairs = [] if given == "none" else [part.split("=", 1) for part in given.split(", ")]
    parameters = {name.strip(): default.strip() for name, default in pairs}
    if set(_PARAMETER.findall(text)) != set(parameters):
        raise MarketflowError(f"{path.name}: its header names {sorted(parameters)}, its text uses others")
    return SavedQuery(path.stem, engine, header["Purpose"], parameters, text)


def saved_queries() -> dict[str, SavedQuery]:
    """All saved queries by name."""
    found = [_read(path, engine) for engine, folder in _FOLDERS.items() for path in sorted(folder.glob("*.sql"))]
    return {query.name: query for query in found}


def _bound(query: SavedQuery, given: dict[str, str]) -> dict[str, Any]:
    unknown = given.keys() - query.parameters.keys()
    if unknown:
        known = ", ".join(query.parameters) or "none"
        raise ConfigurationError(
            f"query {query.name} has no parameter {', '.join(sorted(unknown))}; its parameters: {known}"
        )
    values = query.parameters | given
    for name in set(values) & set(_KNOWN):
        if values[name] not in _KNOWN[name]:
            known = ", ".join(sorted(_KNOWN[name]))
            raise ConfigurationError(f"query {query.name}: there is no {name} {values[name]!r}; there are: {known}")
    wrong = [name for name, value in values.items() if query.parameters[name].isdigit() and not value.isdecimal()]
    if wrong:
        raise ConfigurationError(f"query {query.name}: {wrong[0]}={values[wrong[0]]} is not a whole number")
    return {name: int(value) if query.parameters[name].isdigit() else value for name, value in values.items()}


def run_saved(settings: Settings, name: str, given: dict[str, str]) -> Result:
    """Run a saved query by name with parameters as text; numbers where the default is a number."""
    queries = saved_queries()
    if name not in queries:
        raise ConfigurationError(f"no saved query {name!r}; `marketflow sql --list` shows: {', '.join(queries)}")
    query = queries[name]
    values = _bound(query, given)
    if query.engine == "lake":
        return run_on_lake(settings, query.text, values)
    return run_on_postgres(settings, query.text, values)


def refuse_misspelt(statement: str) -> None:
    """One bare word is no SQL that asks for anything: it was meant for the name of a saved query."""
    if re.fullmatch(r"[A-Za-z_0-9-]+", statement):
        names = list(saved_queries())
        close = difflib.get_close_matches(statement.lower(), names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise ConfigurationError(f"no saved query {statement!r}; {hint}")


def run_on_postgres(settings: Settings, text: str, values: dict[str, Any] | None = None) -> Result:
    """One statement as `marketflow_reader`, which may read and nothing else."""
    import psycopg

    from marketflow.warehouse.connection import connect

    statement = _PARAMETER.sub(r"%(\1)s", text.replace("%", "%%")) if values else text
    try:
        with connect(settings, "marketflow_reader") as connection:
            # whatever the role may do, a statement from here reads
            connection.read_only = True
            cursor = connection.execute(statement, values or None)
            columns = tuple(column.name for column in cursor.description or ())
            result = Result(columns, cursor.fetchall() if cursor.description else [])
            if cursor.nextset():
                raise ConfigurationError("one statement at a time: only one result can be shown")
            return result
    except psycopg.OperationalError as error:
        raise MarketflowError(f"PostgreSQL does not answer ({error}); is the stack up? `marketflow status`") from error
    except psycopg.Error as error:
        raise MarketflowError(f"PostgreSQL refused the statement: {error}") from error


def run_on_lake(settings: Settings, text: str, values: dict[str, Any] | None = None) -> Result:
    """One SELECT on the lake with DuckDB; tables are `bronze.trades_raw`, `silver.trades`, `gold.bars`."""
    import duckdb as engine

    from marketflow.lake import readers

    try:
        with readers.duckdb(settings) as connection:
            statements = connection.extract_statements(text)
            if len(statements) != 1 or statements[0].type != engine.StatementType.SELECT:
                raise ConfigurationError("the lake answers one SELECT at a time; it is read-only here")
            cursor = connection.execute(text, values or None)
            return Result(tuple(column[0] for column in cursor.description or ()), cursor.fetchall())
    except engine.Error as error:
        raise MarketflowError(f"DuckDB refused the statement: {error}") from error
    except OSError as error:
        raise MarketflowError(
            f"the lake's files cannot be read ({error}); is the stack up? `marketflow status`"
        ) from error
