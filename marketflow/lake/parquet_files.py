"""Parquet files beside a table's own, written by a worker without the JVM, each as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from marketflow.contracts.columns import Table
from marketflow.settings import Settings


@dataclass(frozen=True, slots=True)
class ParquetFolder:
    """Where a table's files go and how to get there; travels to the workers, so it holds texts alone."""

    address: str
    endpoint: str | None
    region: str
    access_key: str | None
    secret_key: str | None

    @classmethod
    def of(cls, settings: Settings, table: Table) -> ParquetFolder:
        """The folder `data` of a lake table."""
        embedded = settings.deployment != "aws"
        return cls(
            f"{settings.warehouse}/{settings.namespace(table.layer)}/{table.name}/data",
            settings.s3_endpoint if embedded else None,
            settings.aws_region,
            settings.secret("s3_access_key") if embedded else None,
            settings.secret("s3_secret_key") if embedded else None,
        )

    def write(self, name: str, parts: Iterator[pa.Table]) -> str | None:
        """Write the parts as one file's row groups; its address, or None where there is no part.

        A file that was given up in the middle is in no commit, and maintenance removes it as an orphan.
        """
        first = next(parts, None)
        if first is None:
            return None
        path = f"{self.address}/{name}"
        filesystem = self._filesystem()
        split = urlsplit(path)
        with (
            filesystem.open_output_stream(f"{split.netloc}{split.path}") as stream,
            pq.ParquetWriter(stream, first.schema, compression="zstd", write_statistics=True) as writer,
        ):
            writer.write_table(first)
            for part in parts:
                writer.write_table(part)
        return path

    def _filesystem(self) -> fs.FileSystem:
        if self.access_key is None:
            return fs.S3FileSystem(region=self.region)
        endpoint = urlsplit(self.endpoint or "")
        return fs.S3FileSystem(
            access_key=self.access_key,
            secret_key=self.secret_key,
            region=self.region,
            scheme=endpoint.scheme,
            endpoint_override=endpoint.netloc,
            force_virtual_addressing=False,
        )
