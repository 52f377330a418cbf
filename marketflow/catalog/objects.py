"""Objects of a bucket as a listing tells them, and a digest by which a later look knows that nothing changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class DataObject:
    """One object: its key, size in bytes, ETag and time of its last change."""

    key: str
    size: int
    etag: str
    modified: datetime


def listed(s3: Any, bucket: str, prefix: str) -> list[DataObject]:
    """The data files below a prefix, by key. `s3` is a boto3 client.

    Folders' own markers, and names with `_` or `.` in front, are none, as every engine has it.
    """
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return sorted(
        (
            DataObject(item["Key"], item["Size"], item["ETag"], item["LastModified"])
            for page in pages
            for item in page.get("Contents", ())
            if _is_data(item["Key"].removeprefix(prefix))
        ),
        key=lambda one: one.key,
    )


def digest(*parts: str, objects: Iterable[DataObject] = ()) -> str:
    """Differs when a file came, went or changed, or one of `parts` is another."""
    hashed = hashlib.sha256("\n".join(parts).encode())
    for one in objects:
        hashed.update(f"\n{one.key}\0{one.size}\0{one.etag}\0{one.modified.isoformat()}".encode())
    return hashed.hexdigest()


def _is_data(name: str) -> bool:
    return not name.endswith("/") and not any(part[:1] in ("_", ".") for part in name.split("/"))
