"""The lake without Spark: PyIceberg into Arrow, and DuckDB with a view per table.

This is the one place that makes such clients. Each gets its endpoint, keys and region spelled out: PyArrow and DuckDB
ignore AWS_ENDPOINT_URL, and a client left to find its own way would find the real AWS. On AWS that is meant: there the
keys are the machine's role's, and the addresses AWS's own unless the settings name others.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from marketflow.contracts import tables
from marketflow.contracts.columns import Table, Type
from marketflow.contracts.tables import LAKE_TABLES
from marketflow.errors import ConfigurationError, LakeStateError
from marketflow.lake.file_options import file_options
from marketflow.lake.snapshots import PROPERTY_PREFIX, SnapshotSummary
from marketflow.settings import Settings
from marketflow.warehouse.connection import connect

# avro before iceberg, which reads manifests with it
_EXTENSIONS = ("httpfs", "avro", "iceberg")


def metadata_location(settings: Settings, table: Table | str) -> str:
    """Address of the table's current metadata file, as the catalog has it now."""
    return _locations(settings, [_contract(table)])[_contract(table).qualified]


def namespaces(settings: Settings) -> list[str]:
    """The dataset's namespaces, one a layer of the contract: `sim_bronze`, `sim_silver`, `sim_gold`."""
    return [settings.namespace(layer) for layer in dict.fromkeys(table.layer for table in LAKE_TABLES)]


def locations(settings: Settings) -> dict[tuple[str, str], str]:
    """Address of the current metadata file of every table in the dataset's namespaces, by namespace and name.

    A namespace of somebody's own, `sim_scratch`, is none of these.
    """
    if settings.deployment == "aws":
        return _locations_in_glue(settings)
    with connect(settings, "iceberg", database="iceberg_catalog") as connection:
        made = connection.execute("select to_regclass('iceberg_tables')").fetchone()
        if not (made and made[0]):  # Spark makes it with the first table
            return {}
        rows = connection.execute(
            "select table_namespace, table_name, metadata_location from iceberg_tables "
            "where catalog_name = 'lake' and table_namespace = any(%s)",
            (namespaces(settings),),
        ).fetchall()
    return {(namespace, name): location for namespace, name, location in rows}


def load(
    settings: Settings,
    qualified: Table | str,
    *,
    row_filter: Any = None,
    columns: tuple[str, ...] | None = None,
    snapshot_id: int | None = None,
) -> pa.Table:
    """Rows of `silver.trades`, columns in the contract's order, as of now or of one snapshot.

    `row_filter` is a PyIceberg expression or its text: `"event_ts >= '2026-11-21T10:00:00+00:00'"`.
    """
    from pyiceberg.expressions import AlwaysTrue

    contract = _contract(qualified)
    wanted = columns or contract.column_names
    scan = _opened(settings, metadata_location(settings, contract)).scan(
        row_filter=AlwaysTrue() if row_filter is None else row_filter, selected_fields=wanted, snapshot_id=snapshot_id
    )
    return scan.to_arrow().select(list(wanted))


def load_metadata(settings: Settings, location: str) -> pa.Table:
    """All rows of the table as a metadata file at this address has it; for tables that are known to be small."""
    return _opened(settings, location).scan().to_arrow()


def snapshots(settings: Settings, table: Table | str) -> list[SnapshotSummary]:
    """The current snapshot and its ancestors, newest first, up to the oldest that was not expired."""
    return list(_walk(_opened(settings, metadata_location(settings, table))))


@dataclass(frozen=True, slots=True)
class DataFile:
    """What a table's metadata say of one data file: partition values, rows, and (lowest, highest) of some columns.

    `path` is its address; a file is never changed, so the same addresses hold the same rows.
    """

    partition: tuple[Any, ...]
    rows: int
    bounds: dict[str, tuple[Any, Any]]
    path: str


def data_files(
    settings: Settings, table: Table | str, columns: tuple[str, ...], *, snapshot_id: int | None = None
) -> list[DataFile]:
    """Every data file of the current snapshot, or of another, with the bounds of these columns.

    A text's bounds are cut to 16 characters.

    Raises:
        LakeStateError: rows were deleted by a file beside the data, so that no count in the metadata holds.
    """
    from pyiceberg.conversions import from_bytes

    opened = _opened(settings, metadata_location(settings, table))
    fields = {name: opened.schema().find_field(name) for name in columns}
    found = []
    for task in opened.scan(snapshot_id=snapshot_id).plan_files():
        if task.delete_files:
            raise LakeStateError(f"{_contract(table).qualified} has delete files, which nothing here writes")
        lower, upper = task.file.lower_bounds or {}, task.file.upper_bounds or {}
        bounds = {
            name: (from_bytes(kind.field_type, lower[kind.field_id]), from_bytes(kind.field_type, upper[kind.field_id]))
            for name, kind in fields.items()
            if kind.field_id in lower and kind.field_id in upper
        }
        found.append(DataFile(tuple(task.file.partition), task.file.record_count, bounds, task.file.file_path))
    return found


def duckdb(settings: Settings) -> Any:
    """A DuckDB connection with a view per lake table (`silver.trades`), as of now; it reaches the lake's bucket only.

    Nothing of this machine's files can be read through it, and no setting can be changed any more.
    """
    connection = _engine(settings)
    found = _locations(settings, LAKE_TABLES)
    for layer in dict.fromkeys(table.layer for table in LAKE_TABLES):
        connection.execute(f"create schema {layer}")
    for table in LAKE_TABLES:
        connection.execute(_view_statement(settings, table, found[table.qualified]))
    return _locked(connection, settings)


def duckdb_on_files(settings: Settings) -> Any:
    """The same without a view: whoever uses it says by address which files of the lake's bucket it reads."""
    return _locked(_engine(settings), settings)


def _engine(settings: Settings) -> Any:
    engine: ModuleType = importlib.import_module("duckdb")
    connection = engine.connect(":memory:")
    for name in _EXTENSIONS:
        connection.load_extension(str(_extension_file(name)))
    connection.execute("set timezone = 'UTC'")
    # the bucket is on this machine or beside it: a proxy that the environment names would carry its files away. Of
    # DuckDB's two clients only this one can do without (curl reads the environment by itself).
    connection.execute("set httpfs_client_implementation = 'httplib'")
    connection.execute("set http_proxy = ''")
    connection.execute(_secret_statement(settings))
    return connection


def _locked(connection: Any, settings: Settings) -> Any:
    connection.execute(f"set allowed_directories = ['s3://{settings.lake_bucket}/']")
    connection.execute("set enable_external_access = false")
    connection.execute("set lock_configuration = true")
    return connection


def _contract(table: Table | str) -> Table:
    return tables.table(table) if isinstance(table, str) else table


def _locations(settings: Settings, wanted: tuple[Table, ...] | list[Table]) -> dict[str, str]:
    """Metadata files of these tables by qualified name, in one look at the catalog."""
    stored = locations(settings)
    found = {}
    for table in wanted:
        location = stored.get((settings.namespace(table.layer), table.name))
        if location is None:
            raise LakeStateError(
                f"{table.qualified} of dataset {settings.dataset} is not in the catalog: run `make up`"
            )
        found[table.qualified] = location
    return found


def _locations_in_glue(settings: Settings) -> dict[tuple[str, str], str]:
    """On AWS Spark's catalog is Glue, where a commit changes the table's `metadata_location`."""
    import boto3

    client = boto3.client("glue", endpoint_url=settings.glue_endpoint, region_name=settings.aws_region)
    found = {}
    for namespace in namespaces(settings):
        try:
            for page in client.get_paginator("get_tables").paginate(DatabaseName=namespace):
                for table in page["TableList"]:
                    parameters = table.get("Parameters", {})
                    if parameters.get("table_type", "").upper() == "ICEBERG":
                        found[namespace, table["Name"]] = parameters["metadata_location"]
        except client.exceptions.EntityNotFoundException:  # Spark makes it with the first table
            continue
    return found


def _opened(settings: Settings, location: str) -> Any:
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(location, properties=file_options(settings))


def _walk(table: Any) -> Iterator[SnapshotSummary]:
    snapshot = table.current_snapshot()
    while snapshot is not None:
        summary = snapshot.summary
        properties = dict(summary.additional_properties) if summary else {}
        yield SnapshotSummary(
            snapshot_id=snapshot.snapshot_id,
            parent_id=snapshot.parent_snapshot_id,
            committed_at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
            operation=summary.operation.value if summary else "append",
            properties={
                name.removeprefix(PROPERTY_PREFIX): value
                for name, value in properties.items()
                if name.startswith(PROPERTY_PREFIX)
            },
        )
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else table.snapshot_by_id(parent)


def _extension_file(name: str) -> Path:
    """The extension's binary inside its own wheel, so that nothing is fetched from a network."""
    package = importlib.import_module(f"duckdb_extension_{name}")
    (found,) = Path(str(package.__file__)).parent.glob(f"extensions/*/{name}.duckdb_extension")
    return found


def _secret_statement(settings: Settings) -> str:
    values = {**_keys(settings), "region": settings.aws_region, "scope": f"s3://{settings.lake_bucket}/"}
    if settings.s3_endpoint:  # None on AWS, where the region says it
        endpoint = urlsplit(settings.s3_endpoint)
        use_ssl = str(endpoint.scheme == "https").lower()
        values |= {"endpoint": endpoint.netloc, "url_style": "path", "use_ssl": use_ssl}
    listed = ", ".join(f"{name} {_quoted(value)}" for name, value in values.items())
    return f"create secret lake (type s3, provider config, {listed})"


def _keys(settings: Settings) -> dict[str, str]:
    """DuckDB's own chain of credentials is an extension more, so on AWS boto3's finds them: the machine's role.

    A role's keys last for ten minutes at least; a connection has those of its start and is not for longer.

    Raises:
        ConfigurationError: the machine has no role, and neither environment nor files have keys.
    """
    if settings.deployment != "aws":
        return {"key_id": settings.secret("s3_access_key"), "secret": settings.secret("s3_secret_key")}
    import boto3

    credentials = boto3.Session().get_credentials()
    if credentials is None:
        raise ConfigurationError("MARKETFLOW_DEPLOYMENT=aws, but this process has no role or keys of AWS to read S3")
    keys = credentials.get_frozen_credentials()
    token = {"session_token": keys.token} if keys.token else {}
    return {"key_id": str(keys.access_key), "secret": str(keys.secret_key), **token}


def _view_statement(settings: Settings, table: Table, location: str) -> str:
    """A table that was never written has no snapshot, which iceberg_scan refuses: it is an empty view."""
    name = f"{table.layer}.{table.name}"
    if _opened(settings, location).current_snapshot() is None:
        columns = ", ".join(f'null::{_duckdb_type(column.type)} as "{column.name}"' for column in table.columns)
        return f"create view {name} as select {columns} where false"
    columns = ", ".join(f'"{column}"' for column in table.column_names)
    return f"create view {name} as select {columns} from iceberg_scan({_quoted(location)})"  # noqa: S608 - own names


def _duckdb_type(kind: Type) -> str:
    return (
        "timestamptz" if kind is Type.TIMESTAMP else kind.value.replace("string", "varchar").replace("binary", "blob")
    )


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
