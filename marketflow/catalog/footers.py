"""What the footers of Parquet files say: columns with Glue's types, and rows. A file's data is not read."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from marketflow.catalog.glue_tables import GlueColumn
from marketflow.catalog.objects import DataObject
from marketflow.errors import CrawlError

# most footers fit; a longer one costs a second request
_FIRST_READ_BYTES = 64 * 1024
_TAIL_BYTES = 8
_MAGIC = b"PAR1"
# requests under way at once: a footer is a wait and a little parsing
_THREADS = 8

_TYPES = {
    pa.string(): "string",
    pa.large_string(): "string",
    pa.binary(): "binary",
    pa.large_binary(): "binary",
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
}


@dataclass(frozen=True, slots=True)
class Footer:
    """One file's columns, in its order, and its rows."""

    object: DataObject
    columns: tuple[GlueColumn, ...]
    rows: int


def read(s3: Any, bucket: str, objects: Iterable[DataObject]) -> list[Footer]:
    """The footers of these objects, in their order. `s3` is a boto3 client.

    Raises:
        CrawlError: a file is no Parquet file, changed while it was looked at, or has a column without a Glue type.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda one: _footer(s3, bucket, one), objects))


def _footer(s3: Any, bucket: str, one: DataObject) -> Footer:
    tail = _tail(s3, bucket, one, min(one.size, _FIRST_READ_BYTES))
    if one.size < 2 * len(_MAGIC) + 4 or not tail.endswith(_MAGIC):
        raise CrawlError(f"{one.key} ({one.size} bytes) is no Parquet file; delete it, or write it again")
    (length,) = struct.unpack("<I", tail[-_TAIL_BYTES:-4])
    if length + _TAIL_BYTES > one.size:
        raise CrawlError(f"{one.key} is cut off: its footer would be longer than the file; write it again")
    if length + _TAIL_BYTES > len(tail):
        tail = _tail(s3, bucket, one, length + _TAIL_BYTES)
    try:
        metadata = pq.read_metadata(pa.BufferReader(_MAGIC + tail[-length - _TAIL_BYTES :]))
        fields = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise CrawlError(f"{one.key}: its footer cannot be read ({error}); write it again") from error
    columns = _columns(fields, one.key)
    return Footer(one, columns, metadata.num_rows)


def _columns(fields: pa.Schema, key: str) -> tuple[GlueColumn, ...]:
    columns = tuple(GlueColumn(field.name.lower(), _glue_type(field, key)) for field in fields)
    if len({column.name for column in columns}) != len(columns):
        raise CrawlError(f"{key}: two of its columns have one name, once upper and lower case are the same")
    return columns


def _tail(s3: Any, bucket: str, one: DataObject, length: int) -> bytes:
    """The object's last bytes, of the very version that the listing told."""
    if length == 0:
        return b""
    span = f"bytes={one.size - length}-{one.size - 1}"
    try:
        found: bytes = s3.get_object(Bucket=bucket, Key=one.key, Range=span, IfMatch=one.etag)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("PreconditionFailed", "412", "NoSuchKey", "InvalidRange"):
            raise CrawlError(f"{one.key} was changed while it was looked at; crawl again") from error
        raise
    return found


def _glue_type(field: pa.Field, key: str) -> str:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if kind in _TYPES:
        return _TYPES[kind]
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    raise CrawlError(
        f"{key}: column {field.name} is {kind}, for which the catalog has no type here; write it as another"
    )
