"""A Glue API for a test, Parquet files in the bucket, and an oracle that asks both by plain boto3."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.settings import Settings
from marketflow.stack import glue, s3
from marketflow.stack.servers import child_process, free_ports

FOLDER = "export/features"
DATABASE = "export"


@contextmanager
def glue_server(settings: Settings, **overrides: Any) -> Iterator[Settings]:
    """Settings with a Glue API that listens; it has forgotten everything when the block ends."""
    changed = settings.model_copy(update={"glue_port": free_ports(1)[0], **overrides})
    with child_process(
        changed, "glue", "-m", "marketflow.stack.glue_server", MARKETFLOW_GLUE_PORT=str(changed.glue_port)
    ):
        glue.wait_until_ready(changed)
        yield changed


class Bucket:
    """The features' export of a dataset, as any tool could have written it."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.client = settings, s3.client(settings)
        self.prefix = f"{settings.dataset}/{FOLDER}/"
        self.gets: list[str] = []
        self.client.meta.events.register("before-parameter-build.s3.GetObject", self._count)

    def _count(self, params: Mapping[str, Any], **_: Any) -> None:
        self.gets.append(params["Key"])

    def key(self, product: str, day: str, hour: int, name: str = "part-0.parquet") -> str:
        return f"{self.prefix}product_id={product}/event_date={day}/hour={hour:02d}/{name}"

    def put(self, key: str, columns: Mapping[str, pa.Array]) -> None:
        self.put_bytes(key, parquet(columns))

    def put_bytes(self, key: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.settings.lake_bucket, Key=key, Body=body)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.settings.lake_bucket, Key=key)

    def keys(self, prefix: str) -> list[str]:
        # the older call, which the library does not use, pages by the keys themselves
        pages = self.client.get_paginator("list_objects").paginate(Bucket=self.settings.lake_bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def empty(self, prefix: str | None = None) -> None:
        for key in self.keys(prefix or f"{self.settings.dataset}/export/"):
            self.delete(key)


def parquet(columns: Mapping[str, pa.Array]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), file)
    return file.getvalue()


def everything(client: Any) -> dict[str, Any]:
    """All that the catalog says, without its own times and version numbers."""
    found: dict[str, Any] = {}
    for database in client.get_databases()["DatabaseList"]:
        for table in client.get_tables(DatabaseName=database["Name"])["TableList"]:
            answer = client.get_partitions(DatabaseName=database["Name"], TableName=table["Name"])
            found[f"{database['Name']}.{table['Name']}"] = (
                {name: table[name] for name in ("Parameters", "PartitionKeys", "StorageDescriptor")},
                {tuple(one["Values"]): (one["StorageDescriptor"], one["Parameters"]) for one in answer["Partitions"]},
            )
    return found


def columns(described: Mapping[str, Any]) -> dict[str, str]:
    """Name to type of a StorageDescriptor."""
    return {one["Name"]: one["Type"] for one in described["Columns"]}
