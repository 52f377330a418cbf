"""What the Glue Data Catalog says of our tables, as data and in its API's own shapes. No call is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

# parameters of a table: whose it is (a table without is nobody's to change), and which files it was made from
OWNER = "marketflow.dataset"
LISTING = "marketflow.listing"
PARTITION_COUNT = "marketflow.partitions"
# of an Iceberg table: the metadata file of the lake's own catalog that the published one is a copy of
SOURCE = "marketflow.metadata"
METADATA = "metadata_location"
# names that Glue's own crawlers use
ROWS, FILES, BYTES = "recordCount", "objectCount", "sizeKey"

Format = Literal["iceberg", "parquet"]

_PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {
        "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
        "Parameters": {"serialization.format": "1"},
    },
}


@dataclass(frozen=True, slots=True)
class GlueColumn:
    """A column's name in lower case and its type as Glue and Athena spell it: `bigint`, `decimal(38,18)`."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class GluePartition:
    """One folder of files: the values of its table's keys in their order, its own columns, its counts."""

    values: tuple[str, ...]
    location: str
    columns: tuple[GlueColumn, ...]
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GlueTable:
    """One table. `partitions` is None where they were not looked at, because nothing about them changed."""

    database: str
    name: str
    format: Format
    location: str
    columns: tuple[GlueColumn, ...]
    keys: tuple[GlueColumn, ...]
    parameters: Mapping[str, str]
    partitions: tuple[GluePartition, ...] | None = None

    @property
    def qualified(self) -> str:
        """`sim_export.features`."""
        return f"{self.database}.{self.name}"

    @property
    def definition(self) -> tuple[object, ...]:
        """All that Glue keeps with the table itself."""
        return self.format, self.location, self.columns, self.keys, dict(self.parameters)


def table_input(table: GlueTable) -> dict[str, Any]:
    """The table as create_table and update_table take it."""
    storage = _storage(table.location, table.columns) if table.format == "parquet" else {}
    columns = _columns(table.columns)
    return {
        "Name": table.name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": dict(table.parameters),
        "PartitionKeys": _columns(table.keys),
        "StorageDescriptor": storage or {"Columns": columns, "Location": table.location},
    }


def partition_input(partition: GluePartition) -> dict[str, Any]:
    """The partition as batch_create_partition and batch_update_partition take it."""
    return {
        "Values": list(partition.values),
        "Parameters": dict(partition.parameters),
        "StorageDescriptor": _storage(partition.location, partition.columns),
    }


def table_of(answer: Mapping[str, Any]) -> GlueTable:
    """A table as get_tables told it."""
    storage, parameters = answer.get("StorageDescriptor", {}), answer.get("Parameters", {})
    iceberg = str(parameters.get("table_type", "")).upper() == "ICEBERG"
    return GlueTable(
        database=answer["DatabaseName"],
        name=answer["Name"],
        format="iceberg" if iceberg else "parquet",
        location=storage.get("Location", ""),
        columns=_told(storage.get("Columns", ())),
        keys=_told(answer.get("PartitionKeys", ())),
        parameters=parameters,
    )


def partition_of(answer: Mapping[str, Any]) -> GluePartition:
    """A partition as get_partitions told it."""
    storage = answer.get("StorageDescriptor", {})
    return GluePartition(
        tuple(answer["Values"]),
        storage.get("Location", ""),
        _told(storage.get("Columns", ())),
        answer.get("Parameters", {}),
    )


def _storage(location: str, columns: tuple[GlueColumn, ...]) -> dict[str, Any]:
    return {"Columns": _columns(columns), "Location": location, "Compressed": False, **_PARQUET}


def _columns(columns: Iterable[GlueColumn]) -> list[dict[str, str]]:
    return [{"Name": column.name, "Type": column.type} for column in columns]


def _told(columns: Iterable[Mapping[str, Any]]) -> tuple[GlueColumn, ...]:
    return tuple(GlueColumn(column["Name"], column.get("Type", "")) for column in columns)
