"""Objects of a bucket as a listing tells them, and a digest by which a later look knows that nothing changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from marketflow.errors import LakeStateError


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
    return sorted(
        (one for one in every_object(s3, bucket, prefix) if _is_data(one.key.removeprefix(prefix))),
        key=lambda one: one.key,
    )


def every_object(s3: Any, bucket: str, prefix: str) -> Iterator[DataObject]:
    """All objects below a prefix, whatever their names, a page of a thousand at a time.

    Each page is asked for by the last key of the one before. boto3's own paginator hands back the server's token, which
    s3proxy escapes where a key has a `=`: it got the first page again, and gave up.

    Raises:
        LakeStateError: the server says that there is more, and tells nothing of it.
    """
    after, further = "", dict[str, str]()
    while True:
        page = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, **further)
        found = [
            DataObject(item["Key"], item["Size"], item["ETag"], item["LastModified"])
            for item in page.get("Contents", ())
        ]
        yield from found
        if not page["IsTruncated"]:
            return
        if found and found[-1].key > after:
            after = found[-1].key
            further = {"StartAfter": after}
        elif not found and page.get("NextContinuationToken") not in (None, *further.values()):
            further = {"ContinuationToken": page["NextContinuationToken"]}
        else:
            raise LakeStateError(f"s3://{bucket}/{prefix} cannot be listed beyond {after or 'its start'!r}")


def digest(*parts: str, objects: Iterable[DataObject] = ()) -> str:
    """Differs when a file came, went or changed, or one of `parts` is another."""
    hashed = hashlib.sha256("\n".join(parts).encode())
    for one in objects:
        hashed.update(f"\n{one.key}\0{one.size}\0{one.etag}\0{one.modified.isoformat()}".encode())
    return hashed.hexdigest()


def _is_data(name: str) -> bool:
    return not name.endswith("/") and not any(part[:1] in ("_", ".") for part in name.split("/"))
