"""One crawl: look at the bucket and the lake's catalog, compare with the Glue Data Catalog, then change that.

Everything is looked at before the first word is written, so that a crawl that fails on what it finds writes nothing.
Clients are passed in: the command line's own, or those of Airflow's hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from marketflow.catalog import crawl_iceberg, crawl_parquet, glue
from marketflow.catalog.crawl_iceberg import Copy
from marketflow.catalog.crawl_plan import Plan, plan
from marketflow.catalog.glue_tables import METADATA, OWNER, PARTITION_COUNT, GluePartition, GlueTable
from marketflow.catalog.layouts import LAYOUTS, database
from marketflow.catalog.objects import every_object
from marketflow.errors import CrawlError
from marketflow.lake import readers
from marketflow.settings import Settings
from marketflow.warehouse.locks import table_lock

LOCK = "the catalog"
Partitions = Callable[[str, str], list[GluePartition]]


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """What a crawl found and did. `changes` are sentences; none of them, and the catalog was right already."""

    tables: int
    partitions: int
    changes: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For --json and for an asset's event."""
        return asdict(self)

    def __str__(self) -> str:
        """For a person."""
        what = "\n".join(self.changes) or "nothing changed"
        return f"{what}\n{self.tables} tables, {self.partitions} partitions, {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class _Found:
    tables: list[GlueTable]
    copies: list[Copy]


def crawl(settings: Settings, s3: Any, client: Any, *, anew: bool = False) -> CrawlReport:
    """Publish the lake's Iceberg tables and the plain exports of the dataset; safe to run again at any time.

    `s3` and `client` are boto3 clients of S3 and Glue. `anew` believes nothing that an earlier crawl remembered: every
    file is looked at, every partition compared.

    Raises:
        CrawlError: a file, a column or a table that cannot be published, or a server that does not answer.
        BusyError: another crawl is at work.
    """
    start = time.monotonic()
    with _said_plainly(settings), table_lock(settings, LOCK):
        databases = glue.databases(client)
        published = glue.tables(client, [name for name in databases_of(settings) if name in databases])
        if settings.deployment == "aws":  # Iceberg's tables are there by their own commits
            published = [one for one in published if one.database == database(settings)]
        remembered = {} if anew else {(one.database, one.name): one for one in published if OWNER in one.parameters}
        partitions = cache(partial(glue.partitions, client))
        found = _look(settings, s3, partitions, remembered)
        work = _plan(partitions, found, published, databases)
        if work or anew:
            for copy in found.copies:
                s3.put_object(Bucket=settings.lake_bucket, Key=copy.key, Body=copy.body)
        if work:
            glue.carry_out(client, work, settings.dataset)
            _forget_copies(settings, s3, found.tables, published)
    counted = [int(one.parameters.get(PARTITION_COUNT, "0")) for one in found.tables]
    return CrawlReport(len(found.tables), sum(counted), work.notes, round(time.monotonic() - start, 3))


def databases_of(settings: Settings) -> list[str]:
    """The dataset's databases: one a layer of the lake, and that of the plain exports."""
    return [*readers.namespaces(settings), database(settings)]


def _look(settings: Settings, s3: Any, partitions: Partitions, remembered: dict[tuple[str, str], GlueTable]) -> _Found:
    tables, copies = [], []
    locations = readers.locations(settings) if settings.deployment != "aws" else {}
    for (namespace, name), source in sorted(locations.items()):
        table, copy = crawl_iceberg.found(settings, s3, namespace, name, source, remembered.get((namespace, name)))
        tables.append(table)
        copies += [copy] if copy else []
    for layout in LAYOUTS:
        key = database(settings), layout.name
        exported = crawl_parquet.found(settings, s3, layout, remembered.get(key), partial(partitions, *key))
        tables += [exported] if exported else []
    return _Found(tables, copies)


def _plan(partitions: Partitions, found: _Found, published: list[GlueTable], databases: set[str]) -> Plan:
    """The difference; the partitions of a table are asked for where they were looked at."""
    stored = {(one.database, one.name) for one in published}
    changed = [one for one in found.tables if one.partitions is not None and (one.database, one.name) in stored]
    known = {(one.database, one.name): partitions(one.database, one.name) for one in changed}
    return plan(found.tables, published, databases, known)


def _forget_copies(settings: Settings, s3: Any, tables: list[GlueTable], before: list[GlueTable]) -> None:
    """Delete copies of metadata files but those that are named now, and were named before: a reader may hold one."""
    named = {one.parameters[METADATA] for one in (*tables, *before) if METADATA in one.parameters}
    for table in tables:
        if table.format != "iceberg":
            continue
        prefix = crawl_iceberg.copies_prefix(settings, table.database, table.name)
        for one in every_object(s3, settings.lake_bucket, prefix):
            if f"s3://{settings.lake_bucket}/{one.key}" not in named:
                s3.delete_object(Bucket=settings.lake_bucket, Key=one.key)


@contextmanager
def _said_plainly(settings: Settings) -> Iterator[None]:
    """What a server refuses, or that there is none, as a sentence."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        where = "AWS" if settings.deployment == "aws" else f"{settings.s3_endpoint} or {settings.glue_endpoint}"
        raise CrawlError(f"{where} did not do what the crawl asked ({error}); `marketflow status`") from error
