"""Parquet files beside a table's own, written by a worker without the JVM, each as it comes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

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
            settings.s3_endpoint,
            settings.aws_region,
            settings.secret("s3_access_key") if embedded else None,
            settings.secret("s3_secret_key") if embedded else None,
        )

    def write(self, name: str, parts: Iterator[pa.Table]) -> str | None:
        """Write the parts as one file's row groups; its address, or None where there is no part.

        The file is made beside the worker and put into the bucket whole, so that one that was given up in the middle is
        nowhere; one that no commit took is removed as an orphan by maintenance.
        """
        first = next(parts, None)
        if first is None:
            return None
        path = f"{self.address}/{name}"
        bucket = urlsplit(path)
        with tempfile.TemporaryFile() as file:
            with pq.ParquetWriter(
                file,
                first.schema,
                compression="zstd",
                write_statistics=True,
                use_dictionary=[field.name for field in first.schema if _repeats(field.type)],
            ) as writer:
                writer.write_table(first)
                for part in parts:
                    writer.write_table(part)
            file.seek(0)
            self._client().put_object(Bucket=bucket.netloc, Key=bucket.path.lstrip("/"), Body=file)
        return path

    def _client(self) -> Any:
        """A boto3 client with everything spelled out; without keys the machine's role, as on AWS."""
        import boto3
        from botocore.config import Config

        if self.access_key is None:
            return boto3.client("s3", endpoint_url=self.endpoint, region_name=self.region)
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                # on loopback hashing a file of 100 MB twice costs more than sending it (docs/decisions/0013)
                s3={"addressing_style": "path", "payload_signing_enabled": False},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


def _repeats(kind: pa.DataType) -> bool:
    """Whether a column of this type gains by a dictionary.

    A page of doubles that hardly repeat is collected into one, given up and written anew: of 130 columns that took
    three times the processor time, and a fifth more room.
    """
    return pa.types.is_string(kind) or pa.types.is_int32(kind)
