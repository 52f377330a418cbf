"""After a crawl: one query per table, by nothing but what the catalog says, proves that the table reads.

On one machine DuckDB asks, on AWS Athena. The answer must have the catalog's columns with the catalog's types and, on
one machine, as many rows as the catalog counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from marketflow.catalog import glue
from marketflow.catalog.crawl import databases_of
from marketflow.catalog.glue_tables import METADATA, OWNER, PARTITION_COUNT, ROWS, GlueColumn, GluePartition, GlueTable
from marketflow.errors import CrawlError
from marketflow.lake import readers
from marketflow.settings import Settings

# of an export with more partitions the newest are read: a proof an hour, not a scan of all there ever was
NEWEST_PARTITIONS = 24

_DUCKDB_TYPES = {
    "string": "VARCHAR",
    "binary": "BLOB",
    "boolean": "BOOLEAN",
    "tinyint": "TINYINT",
    "smallint": "SMALLINT",
    "int": "INTEGER",
    "bigint": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}

# database and statement to rows of text, header first
AskAthena = Callable[[str, str], Sequence[Sequence[str | None]]]


@dataclass(frozen=True, slots=True)
class Proof:
    """One table that was read: by which engine, how many columns, and how many rows and partitions of it."""

    table: str
    engine: str
    columns: int
    rows: int
    partitions: int

    def as_dict(self) -> dict[str, Any]:
        """For --json and for an asset's event."""
        return asdict(self)


def prove(settings: Settings, client: Any, ask_athena: AskAthena | None = None) -> list[Proof]:
    """Read every table of the dataset that the catalog has. `client` is a boto3 client of Glue.

    Raises:
        CrawlError: tables that do not read; each is named with what its engine said.
    """
    names = [name for name in databases_of(settings) if name in glue.databases(client)]
    tables = [one for one in glue.tables(client, names) if OWNER in one.parameters or settings.deployment == "aws"]
    if not tables:
        raise CrawlError(f"the catalog has no table in {', '.join(databases_of(settings))}; `marketflow crawl` first")
    proofs, wrong = [], []
    connection = None if ask_athena else readers.duckdb_on_files(settings)
    for table in tables:
        try:
            if ask_athena:
                proofs.append(_by_athena(ask_athena, table))
            else:
                known = glue.partitions(client, table.database, table.name) if table.format == "parquet" else []
                proofs.append(_by_duckdb(settings, connection, table, known))
        except Exception as error:
            wrong.append(f"{table.qualified}: {error}")
    if wrong:
        raise CrawlError(
            f"{len(wrong)} of {len(tables)} tables do not read: {'; '.join(wrong)}. Delete the export's file that is "
            "named, if one is: `marketflow export` writes it again. Then `marketflow crawl --anew`"
        )
    return proofs


def statement(table: GlueTable, partitions: Sequence[GluePartition]) -> str:
    """The one query in DuckDB's words: a row with every column, and how many there are beside it.

    DuckDB counts the rows by the files' footers, and reads one.
    """
    columns = [*table.columns, *table.keys]
    listed = ", ".join(_quoted_name(column.name) for column in columns)
    if table.format == "iceberg":
        source = f"iceberg_scan({_quoted(table.parameters[METADATA])})"
    else:
        files = ", ".join(_quoted(f"{one.location}*.parquet") for one in partitions)
        types = ", ".join(f"{_quoted(key.name)}: {_duckdb_type(key)}" for key in table.keys)
        # a column that some files lack is null there, as the catalog's readers have it
        source = f"read_parquet([{files}], hive_partitioning = true, hive_types = {{{types}}}, union_by_name = true)"
    return (
        f"with found as (select {listed} from {source}) "  # noqa: S608 - names and addresses of the catalog, quoted
        "select (select count(*) from found) as row_count, * from found limit 1"
    )


def _by_duckdb(settings: Settings, connection: Any, table: GlueTable, partitions: list[GluePartition]) -> Proof:
    told = int(table.parameters.get(PARTITION_COUNT, "0"))
    if len(partitions) != told:
        raise CrawlError(f"the catalog has {len(partitions)} partitions where the last crawl left {told}")
    # the newest of all owners together: what comes after the first key is time
    newest = sorted(partitions, key=lambda one: (one.values[1:], one.values))[-NEWEST_PARTITIONS:]
    counts: Iterable[GluePartition | GlueTable] = newest if table.format == "parquet" else [table]
    expected = sum(int(one.parameters[ROWS]) for one in counts)
    if table.format == "iceberg" and expected == 0:
        return _never_written(settings, table)
    cursor = connection.execute(statement(table, newest))
    described = [(name, str(kind)) for name, kind, *_ in cursor.description[1:]]
    _must_be(described, [(one.name, _duckdb_type(one)) for one in (*table.columns, *table.keys)])
    row = cursor.fetchone()
    rows = int(row[0]) if row else 0
    if rows != expected:
        raise CrawlError(f"{rows} rows are read where the catalog counts {expected}")
    return Proof(table.qualified, "duckdb", len(described), rows, len(newest))


def _never_written(settings: Settings, table: GlueTable) -> Proof:
    """DuckDB refuses an Iceberg table without a snapshot; PyIceberg says what it holds."""
    rows = readers.load_metadata(settings, table.parameters[METADATA])
    if rows.num_rows or [name.lower() for name in rows.column_names] != [one.name for one in table.columns]:
        raise CrawlError(f"{rows.num_rows} rows of columns {', '.join(rows.column_names)}, where the catalog has none")
    return Proof(table.qualified, "pyiceberg", len(table.columns), 0, 0)


def _must_be(found: list[tuple[str, str]], told: list[tuple[str, str]]) -> None:
    wrong = [
        f"column {name} reads as {kind}, the catalog says {said} {expected}"
        for (name, kind), (said, expected) in zip(found, told, strict=True)
        if (name.lower(), kind) != (said, expected)
    ]
    if wrong:
        raise CrawlError("; ".join(wrong))


def _by_athena(ask: AskAthena, table: GlueTable) -> Proof:
    """A row with every column; Athena bills by what it scans, so the rows are not counted."""
    name = f"{_quoted_name(table.database)}.{_quoted_name(table.name)}"
    header, *rows = ask(table.database, f"select * from {name} limit 1")  # noqa: S608 - names of the catalog, quoted
    _must_be([(str(one), "") for one in header], [(one.name, "") for one in (*table.columns, *table.keys)])
    return Proof(table.qualified, "athena", len(header), len(rows), 0)


def _duckdb_type(column: GlueColumn) -> str:
    if re.fullmatch(r"decimal\(\d+,\d+\)", column.type):
        return column.type.upper()
    return _DUCKDB_TYPES[column.type]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted_name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
