"""Where the judge reads: the lake's files with DuckDB, Postgres with psycopg, Kafka's offsets, the truth's lines."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

import importlib
import json
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from pyarrow import json as arrow_json

from marketflow.errors import VerificationError
from marketflow.paths import SQL_FOLDER
from marketflow.settings import Settings

CATALOG = "lake"
PROPERTY = "marketflow."
KAFKA_TIMEOUT_S = 15.0
# 38-digit factors give at most 76 digits, and a quotient of them is told from a tie by 140
_EXACT = Context(prec=140, rounding=ROUND_HALF_EVEN)
_PLACES = Decimal(1).scaleb(-18)


def statement(name: str) -> str:
    """The SQL of include/sql/verify/<name>.sql, without a closing semicolon."""
    return (SQL_FOLDER / "verify" / f"{name}.sql").read_text().rstrip().rstrip(";")


def times(left: Decimal, right: Decimal) -> Decimal:
    """The product, half-even to 18 places."""
    return _EXACT.multiply(left, right).quantize(_PLACES, context=_EXACT)


def over(left: Decimal, right: Decimal) -> Decimal | None:
    """The quotient, half-even to 18 places; None over zero."""
    return _EXACT.divide(left, right).quantize(_PLACES, context=_EXACT) if right else None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One Iceberg snapshot of a table's current history."""

    snapshot_id: int
    committed_us: int
    properties: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LakeTable:
    """A table pinned at one metadata file: later commits do not change what is read. Snapshots are newest first."""

    name: str
    metadata_location: str
    snapshots: tuple[Snapshot, ...]

    def newest_with(self, key: str) -> Snapshot | None:
        """The newest snapshot whose summary has `marketflow.<key>`."""
        return next((one for one in self.snapshots if key in one.properties), None)

    def scan(self, snapshot_id: int | None = None) -> str:
        """FROM clause over the pinned state, or over an earlier snapshot of it."""
        at = "" if snapshot_id is None else f", snapshot_from_id => {snapshot_id}"
        return f"iceberg_scan('{self.metadata_location}'{at})"

    def has(self, snapshot_id: int) -> bool:
        """Whether that snapshot can still be read."""
        return any(one.snapshot_id == snapshot_id for one in self.snapshots)


class Workspace:
    """DuckDB in memory, with the lake reachable, and a temporary folder that it may spill into."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Load the extensions from their wheels' own files and say where the lake is, explicitly."""
        self.settings = settings
        self.folder = folder
        self.connection = duckdb.connect(
            config={"threads": 2, "memory_limit": "2GB", "temp_directory": str(folder / "spill")}
        )
        for name in ("httpfs", "avro", "iceberg"):
            package = importlib.import_module(f"duckdb_extension_{name}")
            file = next(Path(str(package.__file__)).parent.glob("extensions/*/*.duckdb_extension"))
            self.run(f"load '{file}'")
        self.run("set timezone = 'UTC'")
        self.run("set preserve_insertion_order = false")
        self.run("set enable_progress_bar = false")
        self._secret()
        money, optional = "DECIMAL(38,18)", {"null_handling": "special"}
        for function in (times, over):
            self.connection.create_function(f"exact_{function.__name__}", function, [money, money], money, **optional)

    def _secret(self) -> None:
        endpoint = self.settings.s3_endpoint
        if self.settings.deployment == "aws" or endpoint is None:
            raise VerificationError("verify reads a lake in an S3 API with its own endpoint; deployment aws has none")
        scheme, _, address = endpoint.partition("://")
        self.connection.execute(
            "create secret lake (type s3, key_id $key, secret $secret, endpoint $endpoint, url_style 'path', "
            "use_ssl $ssl, region $region)".replace("$key", _quoted(self.settings.secret("s3_access_key")))
            .replace("$secret", _quoted(self.settings.secret("s3_secret_key")))
            .replace("$endpoint", _quoted(address))
            .replace("$ssl", "true" if scheme == "https" else "false")
            .replace("$region", _quoted(self.settings.aws_region))
        )

    def run(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Execute one statement; the result has fetchall and fetchone."""
        return self.connection.execute(sql, parameters) if parameters else self.connection.execute(sql)

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return list(self.run(sql, parameters).fetchall())

    def table(self, name: str, sql: str, parameters: Mapping[str, Any] | None = None) -> str:
        """Keep a query's rows under `name`."""
        self.run(f"create or replace temp table {name} as {sql}", parameters)
        return name

    def insert(self, name: str, rows: pa.Table) -> None:
        """Append Arrow rows, columns by name."""
        self.connection.register("arriving", rows)
        self.run(f"insert into {name} by name select * from arriving")
        self.connection.unregister("arriving")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def workspace(settings: Settings) -> Iterator[Workspace]:
    """A workspace that leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="marketflow-verify-") as folder:
        space = Workspace(settings, Path(folder))
        try:
            yield space
        finally:
            space.connection.close()


def pin(space: Workspace, layer: str, name: str) -> LakeTable:
    """The table as the catalog names it now, with its history."""
    settings = space.settings
    with psycopg.connect(settings.dsn("iceberg", "iceberg_catalog")) as connection:
        row = connection.execute(
            "select metadata_location from iceberg_tables "
            "where catalog_name = %s and table_namespace = %s and table_name = %s",
            (CATALOG, settings.namespace(layer), name),
        ).fetchone()
    if row is None:
        raise VerificationError(
            f"the catalog has no table {settings.namespace(layer)}.{name}: has the stack been set up?"
        )
    found = space.run("select content from read_text($location)", {"location": row[0]}).fetchone()
    if found is None:
        raise VerificationError(f"metadata file {row[0]} of {layer}.{name} cannot be read")
    metadata = json.loads(found[0])
    by_id = {one["snapshot-id"]: one for one in metadata.get("snapshots", [])}
    history = []
    current = by_id.get(metadata.get("current-snapshot-id"))
    while current is not None:
        summary = current.get("summary", {})
        properties = {key.removeprefix(PROPERTY): value for key, value in summary.items() if key.startswith(PROPERTY)}
        history.append(Snapshot(current["snapshot-id"], current["timestamp-ms"] * 1000, properties))
        current = by_id.get(current.get("parent-snapshot-id"))
    return LakeTable(f"{layer}.{name}", row[0], tuple(history))


class Warehouse:
    """One transaction of the dataset's database: everything read through it is of one moment."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], space: Workspace) -> None:
        self.connection = connection
        self.space = space

    def rows(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self.connection.execute(sql, parameters).fetchall()

    def copy(self, name: str, query: str, columns: Mapping[str, str]) -> str:
        """A query's rows as a DuckDB table `name`; `columns` gives each column's DuckDB type, in order."""
        path = self.space.folder / f"{name}.csv"
        with (
            path.open("wb") as file,
            self.connection.cursor() as cursor,
            cursor.copy(f"copy ({query}) to stdout (format csv, null '\\N')") as stream,
        ):
            for chunk in stream:
                file.write(chunk)
        kinds = "{" + ", ".join(f"'{column}': '{kind}'" for column, kind in columns.items()) + "}"
        self.space.table(
            name,
            f"select * from read_csv('{path}', columns = {kinds}, header = false, nullstr = '\\N', "
            "delim = ',', quote = '\"', escape = '\"', auto_detect = false, allow_quoted_nulls = false)",
        )
        path.unlink()
        return name


@contextmanager
def warehouse(space: Workspace) -> Iterator[Warehouse]:
    """A read-only, repeatable-read transaction as the reader role."""
    dsn = space.settings.dsn("marketflow_reader")
    # the judge may take longer over a large lake than the role's limits allow a forgotten session
    options = "-c timezone=UTC -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
    with psycopg.connect(dsn, connect_timeout=5, options=options) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield Warehouse(connection, space)


@dataclass(frozen=True, slots=True)
class PartitionOffsets:
    """Of one Kafka partition: the first offset it still has, the next it will give, the first at or after the cut."""

    low: int
    end: int
    at_cut: int


def kafka_offsets(settings: Settings, topic: str, partitions: int, cut_us: int | None) -> dict[int, PartitionOffsets]:
    """Offsets of every partition of a topic (full name)."""
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "marketflow-verify",
            "enable.auto.commit": False,
            "log_level": 2,
        }
    )
    try:
        found = {}
        for partition in range(partitions):
            low, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=KAFKA_TIMEOUT_S)
            at_cut = end
            if cut_us is not None:
                asked = TopicPartition(topic, partition, cut_us // 1000)
                answer = consumer.offsets_for_times([asked], timeout=KAFKA_TIMEOUT_S)[0]
                at_cut = answer.offset if answer.offset >= 0 else end
            found[partition] = PartitionOffsets(low, end, at_cut)
        return found
    finally:
        consumer.close()


def truth_lines(path: Path, columns: Mapping[str, Any]) -> pa.Table:
    """The whole lines of a truth file; a line that is being written right now is not there yet."""
    schema = pa.schema([pa.field(name, kind) for name, kind in columns.items()])
    if not path.exists() or path.stat().st_size == 0:
        return schema.empty_table()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
        if end == 0:
            return schema.empty_table()
        options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        try:
            return arrow_json.read_json(pa.BufferReader(content[:end]), parse_options=options).select(list(columns))
        except pa.ArrowInvalid as error:
            raise VerificationError(f"{path} holds a line that is no fact: {error}") from None
