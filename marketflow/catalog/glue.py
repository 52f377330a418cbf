"""The calls to the Glue Data Catalog: what is published there, and carrying out a plan. `glue` is a boto3 client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from marketflow.catalog.crawl_plan import Name, PartitionChanges, Plan
from marketflow.catalog.glue_tables import (
    LISTING,
    GluePartition,
    GlueTable,
    partition_input,
    partition_of,
    table_input,
    table_of,
)
from marketflow.errors import CrawlError

T = TypeVar("T")

# the API's own limits of a batch
_CREATED_AT_ONCE, _UPDATED_AT_ONCE, _DELETED_AT_ONCE = 100, 100, 25


def databases(glue: Any) -> set[str]:
    """The names of all databases."""
    pages = glue.get_paginator("get_databases").paginate()
    return {one["Name"] for page in pages for one in page["DatabaseList"]}


def tables(glue: Any, names: Iterable[str]) -> list[GlueTable]:
    """All tables of these databases, each of which exists; without their partitions."""
    paginator = glue.get_paginator("get_tables")
    return [
        table_of({"DatabaseName": name, **one})
        for name in names
        for page in paginator.paginate(DatabaseName=name)
        for one in page["TableList"]
    ]


def partitions(glue: Any, database: str, table: str) -> list[GluePartition]:
    """All partitions of a table."""
    pages = glue.get_paginator("get_partitions").paginate(DatabaseName=database, TableName=table)
    return [partition_of(one) for page in pages for one in page["Partitions"]]


def carry_out(glue: Any, plan: Plan, dataset: str) -> None:
    """Do what the plan says. A table says which files it was made from only once its partitions are there.

    So a crawl that was cut off in the middle is finished by the next: it finds no such word, and compares.

    Raises:
        CrawlError: Glue took a part of a batch only; the message names the first that it refused, and why.
    """
    for name in plan.databases:
        description = f"marketflow, dataset {dataset}: made by the crawl, rebuilt by it at any time"
        glue.create_database(DatabaseInput={"Name": name, "Description": description})
    for database, name in plan.delete:
        glue.delete_table(DatabaseName=database, Name=name)
    for table, write in (
        *((one, glue.create_table) for one in plan.create),
        *((one, _updater(glue)) for one in plan.update),
    ):
        key = table.database, table.name
        changes = plan.partitions.get(key)
        if not changes:
            write(DatabaseName=table.database, TableInput=table_input(table))
            continue
        write(DatabaseName=table.database, TableInput=_unfinished(table))
        _change_partitions(glue, key, changes)
        _updater(glue)(DatabaseName=table.database, TableInput=table_input(table))


def _updater(glue: Any) -> Callable[..., Any]:
    """update_table that leaves no copy of what was before: the catalog is a view, and its history is nobody's."""
    return lambda **arguments: glue.update_table(**arguments, SkipArchive=True)


def _unfinished(table: GlueTable) -> dict[str, Any]:
    whole = table_input(table)
    parameters = {name: value for name, value in whole["Parameters"].items() if name != LISTING}
    return {**whole, "Parameters": parameters}


def _change_partitions(glue: Any, name: Name, changes: PartitionChanges) -> None:
    where = {"DatabaseName": name[0], "TableName": name[1]}
    for values in _batches(changes.delete, _DELETED_AT_ONCE):
        listed = [{"Values": list(one)} for one in values]
        _all_taken(name, glue.batch_delete_partition(**where, PartitionsToDelete=listed))
    for updated in _batches(changes.update, _UPDATED_AT_ONCE):
        entries = [{"PartitionValueList": list(one.values), "PartitionInput": partition_input(one)} for one in updated]
        _all_taken(name, glue.batch_update_partition(**where, Entries=entries))
    for created in _batches(changes.create, _CREATED_AT_ONCE):
        inputs = [partition_input(one) for one in created]
        _all_taken(name, glue.batch_create_partition(**where, PartitionInputList=inputs))


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _all_taken(name: Name, answer: dict[str, Any]) -> None:
    errors = answer.get("Errors") or ()
    if errors:
        first = errors[0]
        raise CrawlError(
            f"{'.'.join(name)}: Glue refused {len(errors)} partitions, first {first.get('PartitionValues')} "
            f"({first.get('ErrorDetail')}); crawl again"
        )
