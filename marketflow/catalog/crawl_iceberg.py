"""The lake's Iceberg tables for the catalog: a copy of each table's metadata file, and what it says.

The lake's own catalog is the truth, and its writers delete a metadata file twenty commits later: of bronze that is ten
minutes. What is published is therefore a copy that stays until the crawl after the next; the snapshots that it names
live for a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from marketflow.catalog.glue_tables import METADATA, OWNER, ROWS, SOURCE, GlueColumn, GlueTable
from marketflow.errors import CrawlError
from marketflow.settings import Settings

_TYPES = {
    "boolean": "boolean",
    "int": "int",
    "long": "bigint",
    "float": "float",
    "double": "double",
    "date": "date",
    "time": "string",
    "timestamp": "timestamp",
    "timestamptz": "timestamp",
    "string": "string",
    "uuid": "string",
    "binary": "binary",
}


@dataclass(frozen=True, slots=True)
class Copy:
    """A metadata file to be put into the bucket before a table names it."""

    key: str
    body: bytes


def copies_root(settings: Settings) -> str:
    """Where the copies of all metadata files are: `sim/catalog/`."""
    return f"{settings.dataset}/catalog/"


def copies_prefix(settings: Settings, namespace: str, name: str) -> str:
    """Where the copies of a table's metadata files are: `sim/catalog/sim_silver/trades/`."""
    return f"{copies_root(settings)}{namespace}/{name}/"


def found(
    settings: Settings, s3: Any, namespace: str, name: str, source: str, published: GlueTable | None
) -> tuple[GlueTable, Copy | None]:
    """The table as the metadata file at `source` has it; as it is `published`, without a look, where that is the same.

    Raises:
        CrawlError: a column is of a type that has no place in the catalog here.
    """
    if published is not None and published.parameters.get(SOURCE) == source:
        return published, None
    bucket, _, key = source.removeprefix("s3://").partition("/")
    body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    metadata = msgspec.json.decode(body)
    copy = Copy(f"{copies_prefix(settings, namespace, name)}{key.rpartition('/')[2]}", body)
    parameters = {
        "table_type": "ICEBERG",
        "EXTERNAL": "TRUE",
        METADATA: f"s3://{settings.lake_bucket}/{copy.key}",
        SOURCE: source,
        ROWS: _rows(metadata),
        OWNER: settings.dataset,
    }
    columns = _columns(f"{namespace}.{name}", metadata)
    return GlueTable(namespace, name, "iceberg", metadata["location"], columns, (), parameters), copy


def _columns(qualified: str, metadata: Mapping[str, Any]) -> tuple[GlueColumn, ...]:
    current = metadata["current-schema-id"]
    (schema,) = [one for one in metadata["schemas"] if one["schema-id"] == current]
    return tuple(GlueColumn(field["name"].lower(), _type(qualified, field)) for field in schema["fields"])


def _type(qualified: str, field: Mapping[str, Any]) -> str:
    kind = field["type"]
    if isinstance(kind, str):
        if kind in _TYPES:
            return _TYPES[kind]
        if kind.startswith("decimal"):
            return kind.replace(" ", "")
    raise CrawlError(f"{qualified}: column {field['name']} is {kind}, for which the catalog has no type here")


def _rows(metadata: Mapping[str, Any]) -> str:
    """Rows of the current snapshot; 0 of a table that was never written."""
    current = metadata.get("current-snapshot-id")
    summaries = [one["summary"] for one in metadata.get("snapshots", ()) if one["snapshot-id"] == current]
    return str(summaries[0].get("total-records", "0")) if summaries else "0"
