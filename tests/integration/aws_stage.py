"""What AWS is to this project, by moto's server on loopback: S3 and Glue, with Iceberg tables that PyIceberg writes."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import boto3
import pyarrow as pa
from moto.server import ThreadedMotoServer
from pyiceberg.transforms import DayTransform, HourTransform, IdentityTransform

from marketflow.contracts.columns import Table
from marketflow.features.frames import ARROW_TYPES
from marketflow.lake import gold_files
from marketflow.settings import Settings
from marketflow.stack.servers import free_ports

TRANSFORMS = {"": IdentityTransform(), "days": DayTransform(), "hours": HourTransform()}
KEYS = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_SESSION_TOKEN": "of-a-role",
    # what Arrow's client of S3 would ask for a role later, when these keys are gone again
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of every service of AWS; it has forgotten everything when the block ends."""
    port = free_ports(1)[0]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    try:
        yield address
    finally:
        # what it holds is the process's, not the server's
        urllib.request.urlopen(urllib.request.Request(f"{address}/moto-api/reset", method="POST"))
        server.stop()


def variables(address: str) -> dict[str, str]:
    """The environment of a machine on AWS, with keys in the place of its role, and moto in that of AWS."""
    return {
        **KEYS,
        "MARKETFLOW_DEPLOYMENT": "aws",
        "MARKETFLOW_S3_ENDPOINT_URL": address,
        "MARKETFLOW_GLUE_ENDPOINT_URL": address,
    }


def write(settings: Settings, tables: Mapping[Table, list[pa.Table]]) -> None:
    """Make bucket, Glue's databases and these tables, and commit their rows; the environment has the keys."""
    boto3.client("s3", endpoint_url=settings.s3_endpoint, region_name=settings.aws_region).create_bucket(
        Bucket=settings.lake_bucket
    )
    catalog = gold_files.catalog(settings)
    for table, commits in tables.items():
        namespace = settings.namespace(table.layer)
        catalog.create_namespace_if_not_exists(namespace)
        fields = [pa.field(column.name, ARROW_TYPES[column.type], column.nullable) for column in table.columns]
        location = f"{settings.warehouse}/{namespace}/{table.name}"
        made = catalog.create_table((namespace, table.name), pa.schema(fields), location=location)
        with made.update_spec() as spec:
            for text in table.partitioning:
                transform, _, column = text.removesuffix(")").rpartition("(")
                spec.add_field(column, TRANSFORMS[transform])
        for rows in commits:
            made.append(rows)
