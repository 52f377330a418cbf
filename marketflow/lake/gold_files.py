"""Replacing whole hours of a table by files that are written already: one commit of the metadata, without the JVM.

PyIceberg deletes the hours' rows (whole files by their bounds; a file that holds other hours too, as compaction leaves
one for a day, is read whole and written anew without them, by pyiceberg-core) and adds the files, in one transaction: a
reader sees either the old hours or the new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import reduce
from typing import Any

from marketflow.contracts.columns import Table
from marketflow.lake import gold_hours
from marketflow.lake.file_options import file_options
from marketflow.lake.session import CATALOG
from marketflow.lake.snapshots import PROPERTY_PREFIX
from marketflow.settings import Settings


def replace(
    settings: Settings,
    table: Table,
    paths: Sequence[str],
    hours: Sequence[datetime],
    properties: Mapping[str, str],
    account: Mapping[str, str],
) -> None:
    """Replace `hours` of the table by the files, each of which lies in one of them; an hour without one is emptied.

    The transaction is up to three snapshots, each with the `properties`, the one of the files with the `account` too.
    """
    assert table.hour_column
    said = {PROPERTY_PREFIX + name: value for name, value in properties.items()}
    last = said | {PROPERTY_PREFIX + name: value for name, value in account.items()}
    stored = catalog(settings).load_table((settings.namespace(table.layer), table.name))
    with stored.transaction() as transaction:
        if stored.current_snapshot() is not None:
            transaction.delete(_inside(table.hour_column, hours), snapshot_properties=said if paths else last)
        if paths:
            # uuids name them, so none can be there already
            transaction.add_files(list(paths), snapshot_properties=last, check_duplicate_files=False)


def catalog(settings: Settings) -> Any:
    """The catalog that Spark's sessions use, for PyIceberg."""
    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.catalog.sql import SqlCatalog

    if settings.deployment == "aws":
        endpoint = {"glue.endpoint": settings.glue_endpoint} if settings.glue_endpoint else {}
        return GlueCatalog(CATALOG, **{"glue.region": settings.aws_region}, **endpoint, **file_options(settings))
    host = settings.postgres_host or settings.host
    password = settings.secret("postgres_iceberg")
    return SqlCatalog(
        CATALOG,
        **{
            "uri": f"postgresql+psycopg://iceberg:{password}@{host}:{settings.postgres_port}/iceberg_catalog",
            # Spark's own catalog made its tables
            "init_catalog_tables": "false",
            "warehouse": settings.warehouse,
            **file_options(settings),
        },
    )


def _inside(column: str, hours: Sequence[datetime]) -> Any:
    from pyiceberg.expressions import And, GreaterThanOrEqual, LessThan, Or

    ranges = [
        And(GreaterThanOrEqual(column, run.start.isoformat()), LessThan(column, run.end.isoformat()))
        for run in gold_hours.runs(hours)
    ]
    return reduce(Or, ranges)
