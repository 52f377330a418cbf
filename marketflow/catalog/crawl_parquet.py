"""Folders of Parquet files as a table of the catalog. Only files of folders that changed are opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from marketflow.catalog import footers
from marketflow.catalog.footers import Footer
from marketflow.catalog.glue_tables import (
    BYTES,
    FILES,
    LISTING,
    OWNER,
    PARTITION_COUNT,
    ROWS,
    GlueColumn,
    GluePartition,
    GlueTable,
)
from marketflow.catalog.layouts import Layout, database
from marketflow.catalog.objects import DataObject, digest, listed
from marketflow.errors import CrawlError
from marketflow.settings import Settings

# a change of what is published from the same files is another number: every table is then looked at anew
VERSION = "1"
# of a column that is of two types, so many files of the rarer one are named
_NAMED_FILES = 3

Folders = Mapping[tuple[str, ...], Sequence[DataObject]]
Partitions = Callable[[], Iterable[GluePartition]]


def found(
    settings: Settings, s3: Any, layout: Layout, published: GlueTable | None, published_partitions: Partitions
) -> GlueTable | None:
    """The table that the bucket's files make; None without a file. Nothing is written.

    A table whose listing is the one it was `published` from comes back as it is, with no look at a file or a partition.

    Raises:
        CrawlError: folders that are not the layout's, files that cannot be read, a column of two types.
    """
    prefix = layout.prefix(settings)
    objects = listed(s3, settings.lake_bucket, prefix)
    if not objects:
        return None
    whole = digest(VERSION, prefix, objects=objects)
    if published is not None and published.parameters.get(LISTING) == whole:
        return published
    folders: dict[tuple[str, ...], list[DataObject]] = defaultdict(list)
    for one in objects:
        folders[layout.values(one.key, prefix)].append(one)
    known = {one.values: one for one in published_partitions()} if published is not None else {}
    kept = {
        values: known[values]
        for values, files in folders.items()
        if values in known and known[values].parameters.get(LISTING) == digest(VERSION, objects=files)
    }
    fresh = [one for values, files in folders.items() if values not in kept for one in files]
    read = {footer.object.key: footer for footer in footers.read(s3, settings.lake_bucket, fresh)}
    columns = agreed(layout, folders, kept, read, published.columns if published is not None else ())
    root = f"s3://{settings.lake_bucket}/{prefix}"
    partitions = tuple(
        kept.get(values) or _partition(layout, root, values, files, [read[one.key] for one in files], columns)
        for values, files in sorted(folders.items())
    )
    counts = {name: str(sum(int(one.parameters[name]) for one in partitions)) for name in (ROWS, FILES, BYTES)}
    parameters = {
        "classification": "parquet",
        "EXTERNAL": "TRUE",
        **counts,
        OWNER: settings.dataset,
        PARTITION_COUNT: str(len(partitions)),
        LISTING: whole,
    }
    return GlueTable(database(settings), layout.name, "parquet", root, columns, layout.keys, parameters, partitions)


def agreed(
    layout: Layout,
    folders: Folders,
    kept: Mapping[tuple[str, ...], GluePartition],
    read: Mapping[str, Footer],
    published: Iterable[GlueColumn],
) -> tuple[GlueColumn, ...]:
    """The columns that all files have, each with the one type on which they agree: known ones first, new ones after.

    Raises:
        CrawlError: a column of two types, or one of a folder's name; it names column, types and files.
    """
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    by_age = sorted((footer.object.modified, footer.object.key, footer.columns) for footer in read.values())
    # of a folder that did not change its first file stands for all
    unread = [(folders[values][0].key, partition.columns) for values, partition in sorted(kept.items())]
    for key, columns in [*unread, *((key, columns) for _, key, columns in by_age)]:
        for column in columns:
            said[column.name][column.type].append(key)
    in_folders = {column.name for column in layout.keys}
    wrong = [_conflict(name, types) for name, types in said.items() if len(types) > 1]
    wrong += [
        f"column {name} of {next(iter(types.values()))[0]} is what its folders are named by"
        for name, types in said.items()
        if name in in_folders
    ]
    if wrong:
        raise CrawlError(
            f"{layout.name}: nothing was published. {'; '.join(wrong)}. Write these files again, or delete them"
        )
    order = [column.name for column in published if column.name in said]
    order += [name for name in said if name not in order]
    return tuple(GlueColumn(name, next(iter(said[name]))) for name in order)


def _conflict(name: str, types: Mapping[str, Sequence[str]]) -> str:
    """`column price is string in a.parquet, but double in 12 others`: the rarer type first."""
    (odd, files), *others = sorted(types.items(), key=lambda item: (len(item[1]), item[0]))
    named = ", ".join(sorted(files)[:_NAMED_FILES])
    more = f" and {len(files) - _NAMED_FILES} more" if len(files) > _NAMED_FILES else ""
    rest = ", ".join(f"{kind} in {sorted(keys)[0]} (of {len(keys)})" for kind, keys in others)
    return f"column {name} is {odd} in {named}{more}, but {rest}"


def _partition(
    layout: Layout,
    root: str,
    values: tuple[str, ...],
    files: Sequence[DataObject],
    read: Sequence[Footer],
    columns: Iterable[GlueColumn],
) -> GluePartition:
    has = {column.name for footer in read for column in footer.columns}
    parameters = {
        "classification": "parquet",
        ROWS: str(sum(footer.rows for footer in read)),
        FILES: str(len(files)),
        BYTES: str(sum(one.size for one in files)),
        LISTING: digest(VERSION, objects=files),
    }
    own = tuple(column for column in columns if column.name in has)
    return GluePartition(values, f"{root}{layout.path(values)}", own, parameters)
