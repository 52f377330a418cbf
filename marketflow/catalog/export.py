"""`marketflow export features` and `export silver`: lake tables as plain Parquet, one file a folder.

A folder is written again when the lake's data files behind it are others than those it was made from, or what lies in
it is not what was put there, and only then; a file of the lake is never changed, so its address stands for its rows. A
folder's one object is put whole, so a reader sees the old rows or the new ones. What stands where is remembered beside
the files, in `_exported.json`.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from marketflow.catalog.layouts import Layout
from marketflow.catalog.objects import DataObject, digest, listed
from marketflow.errors import ConfigurationError, LakeStateError
from marketflow.features.frames import ARROW_TYPES
from marketflow.lake import readers
from marketflow.settings import Settings
from marketflow.warehouse.locks import table_lock

# a change of what is written for the same rows is another number: every folder is then written anew
VERSION = "1"
MEMORY = "_exported.json"
FILE = "part-0.parquet"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which folders: of one owner (a product), and of times in [start, end); None leaves it open."""

    owner: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def has(self, owner: str | None, start: datetime, end: datetime) -> bool:
        """Whether a folder of this owner and these times is meant; a folder is meant whole."""
        mine = self.owner in (None, owner)
        return mine and (self.start is None or end > self.start) and (self.end is None or start < self.end)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What became of one export: folders written, left as they were, and removed; rows and bytes written."""

    where: str
    written: int
    unchanged: int
    removed: int
    rows: int
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """For --json and for an asset's event."""
        return asdict(self)

    def __str__(self) -> str:
        """For a person."""
        return (
            f"{self.where}: {self.written} folders written ({self.rows:,} rows, {self.bytes:,} bytes), "
            f"{self.unchanged} unchanged, {self.removed} removed"
        )


def export(settings: Settings, s3: Any, layout: Layout, scope: Scope | None = None) -> ExportReport:
    """Bring the plain copy of a table up to the lake's present snapshot. `s3` is a boto3 client.

    A folder's rows are in memory while it is written.

    Raises:
        BusyError: the same export is at work in another process.
        CrawlError: there are files in the export that are not of its layout.
    """
    wish, prefix = scope or Scope(), layout.prefix(settings)
    with table_lock(settings, f"export {layout.folder}"):
        snapshot_id = next((one.snapshot_id for one in readers.snapshots(settings, layout.table)), None)
        sources = _sources(settings, layout, snapshot_id) if snapshot_id is not None else {}
        there = _folders(listed(s3, settings.lake_bucket, prefix), layout, prefix)
        counts = {"written": 0, "unchanged": 0, "removed": 0, "rows": 0, "bytes": 0}
        with Memory.of(s3, settings.lake_bucket, prefix + MEMORY) as memory:
            for values in sorted({*sources, *there}):
                if not wish.has(values[0], *_span(values)):
                    continue
                made_from = digest(VERSION, *sorted(sources.get(values, ())))
                rows, size = 0, 0
                if values in sources:
                    if memory.holds(values, made_from, there.get(values, ())):
                        counts["unchanged"] += 1
                        continue
                    table = _load(settings, layout, values, snapshot_id)
                    rows, etags = table.num_rows, {}
                    if rows:
                        key = f"{prefix}{layout.path(values)}{FILE}"
                        size, etags[key] = _put(s3, settings.lake_bucket, key, table)
                    memory.remember(values, made_from, rows, etags)
                else:
                    memory.forget(values)
                stale = [one for one in there.get(values, ()) if not rows or not one.key.endswith(f"/{FILE}")]
                for one in stale:
                    s3.delete_object(Bucket=settings.lake_bucket, Key=one.key)
                counts["removed"] += bool(stale) and not rows
                counts["written"] += bool(rows)
                counts["rows"] += rows
                counts["bytes"] += size
    return ExportReport(f"s3://{settings.lake_bucket}/{prefix}", **counts)


class Memory:
    """What each folder was made from and what was put there, kept in an object beside the folders.

    As a context it is written down at the end, also where the work was cut off: what stands need not be done again.
    """

    def __init__(self, s3: Any, bucket: str, key: str, told: dict[str, Any]) -> None:
        """Use `of`."""
        self._s3, self._bucket, self._key = s3, bucket, key
        self._told, self._changed = told, False

    @classmethod
    def of(cls, s3: Any, bucket: str, key: str) -> Memory:
        """What an earlier export left there; nothing, before the first, or where it cannot be read any more.

        What is not remembered is written anew.
        """
        try:
            told = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            told = {}
        except ValueError:
            told = {}
        return cls(s3, bucket, key, told if isinstance(told, dict) else {})

    def __enter__(self) -> Memory:
        """Nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Keep it."""
        self.keep()

    def holds(self, values: tuple[str, ...], made_from: str, there: Iterable[DataObject]) -> bool:
        """Whether the folder was made from the same, and what is there now is what was put there and nothing else."""
        told, etags = self._told.get("/".join(values)), {one.key: one.etag for one in there}
        match told:
            case [source, int(rows)] if source == made_from and bool(rows) == bool(etags):
                # of a version that did not remember what it put there: what is there counts as that
                self.remember(values, made_from, rows, etags)
                return True
            case [source, int(), dict(put)]:
                return bool(source == made_from and put == etags)
        return False

    def remember(self, values: tuple[str, ...], made_from: str, rows: int, etags: Mapping[str, str]) -> None:
        """The folder now is of this, with these objects."""
        self._told["/".join(values)] = [made_from, rows, dict(etags)]
        self._changed = True

    def forget(self, values: tuple[str, ...]) -> None:
        """The folder is gone."""
        self._changed = self._told.pop("/".join(values), None) is not None or self._changed

    def keep(self) -> None:
        """Write it down, where anything is new."""
        if self._changed:
            body = json.dumps(self._told, sort_keys=True).encode()
            self._s3.put_object(Bucket=self._bucket, Key=self._key, Body=body)


def _folders(objects: list[DataObject], layout: Layout, prefix: str) -> Mapping[tuple[str, ...], list[DataObject]]:
    found: dict[tuple[str, ...], list[DataObject]] = defaultdict(list)
    for one in objects:
        found[layout.values(one.key, prefix)].append(one)
    return found


def _sources(settings: Settings, layout: Layout, snapshot_id: int) -> dict[tuple[str, ...], set[str]]:
    """The lake's files that may hold rows of each folder, by their bounds of the event time."""
    found: dict[tuple[str, ...], set[str]] = defaultdict(set)
    step = timedelta(hours=1) if layout.hourly else timedelta(days=1)
    files = readers.data_files(settings, layout.table, (layout.time_column,), snapshot_id=snapshot_id)
    for one in files:
        for start in steps(one, layout.time_column, step):
            hour = (f"{start:%H}",) if layout.hourly else ()
            found[str(one.partition[0]), f"{start:%Y-%m-%d}", *hour].add(one.path)
    return found


def steps(file: readers.DataFile, column: str, step: timedelta) -> Iterator[datetime]:
    """The starts of the UTC hours or days that a file's bounds of a time column reach over.

    Raises:
        LakeStateError: the file has no bounds of it.
    """
    if column not in file.bounds:
        raise LakeStateError(
            f"{file.path} has no bounds of {column}: rewrite it (Dag maintain_lake), then export again"
        )
    first, last = (_EPOCH + timedelta(microseconds=int(bound)) for bound in file.bounds[column])
    start = _EPOCH + (first - _EPOCH) // step * step
    while start <= last:
        yield start
        start += step


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _span(values: tuple[str, ...]) -> tuple[datetime, datetime]:
    """Start and end of a folder's times."""
    start = datetime.fromisoformat(values[1]).replace(tzinfo=UTC)
    if len(values) == 2:
        return start, start + timedelta(days=1)
    start += timedelta(hours=int(values[2]))
    return start, start + timedelta(hours=1)


def _load(settings: Settings, layout: Layout, values: tuple[str, ...], snapshot_id: int | None) -> pa.Table:
    """The folder's rows, sorted by the contract's key, in the contract's types."""
    from pyiceberg.expressions import And, EqualTo, GreaterThanOrEqual, LessThan

    start, end = _span(values)
    mine = And(
        EqualTo(layout.owner_column, values[0]),
        And(GreaterThanOrEqual(layout.time_column, start.isoformat()), LessThan(layout.time_column, end.isoformat())),
    )
    rows = readers.load(settings, layout.table, row_filter=mine, columns=layout.columns, snapshot_id=snapshot_id)
    fields = [
        pa.field(column.name, ARROW_TYPES[column.type], column.nullable)
        for column in layout.table.columns
        if column.name in layout.columns
    ]
    order = [(name, "ascending") for name in layout.table.key if name in layout.columns]
    return rows.cast(pa.schema(fields)).sort_by(order)


def _put(s3: Any, bucket: str, key: str, table: pa.Table) -> tuple[int, str]:
    """Write the rows as one object, which is there whole or not at all; its size in bytes and its ETag."""
    with tempfile.TemporaryFile() as file:
        pq.write_table(table, file, compression="zstd", coerce_timestamps="us")
        size = file.tell()
        file.seek(0)
        return size, str(s3.put_object(Bucket=bucket, Key=key, Body=file)["ETag"])


def refuse_unknown_owner(layouts: Sequence[Layout], settings: Settings, owner: str) -> None:
    """A misspelt product would export nothing without a word.

    Raises:
        ConfigurationError: none of these tables has a row of this owner; the message names those that they have.
    """
    known = {str(one.partition[0]) for layout in layouts for one in readers.data_files(settings, layout.table, ())}
    if owner not in known:
        names = " or ".join(layout.table.qualified for layout in layouts)
        there = ", ".join(sorted(known)) or "none yet"
        raise ConfigurationError(f"no {layouts[0].owner_column} {owner!r} in {names}; there is {there}")
