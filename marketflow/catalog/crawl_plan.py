"""What has to change in the catalog so that it says what was found. Pure: nothing is asked and nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from marketflow.catalog.glue_tables import OWNER, ROWS, SOURCE, GlueColumn, GluePartition, GlueTable
from marketflow.errors import CrawlError

Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PartitionChanges:
    """Of one table: partitions to create and to update, and the values of those to delete."""

    create: tuple[GluePartition, ...] = ()
    update: tuple[GluePartition, ...] = ()
    delete: tuple[tuple[str, ...], ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.create or self.update or self.delete)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to do, in this order: databases, tables to delete, then each table with its partitions.

    A table in `delete` and in `create` is made anew. `notes` say in words what is new and what is gone.
    """

    databases: tuple[str, ...] = ()
    delete: tuple[Name, ...] = ()
    create: tuple[GlueTable, ...] = ()
    update: tuple[GlueTable, ...] = ()
    partitions: Mapping[Name, PartitionChanges] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is to do."""
        return bool(self.databases or self.delete or self.create or self.update)


def plan(
    found: Iterable[GlueTable],
    published: Iterable[GlueTable],
    databases: Collection[str],
    partitions: Mapping[Name, Collection[GluePartition]],
) -> Plan:
    """The difference of what was `found` and what is `published`.

    `databases` are those that exist. `partitions` are the published ones of each table that has changed. A table that
    somebody else made in one of our databases is left alone, unless it has the name of one of ours.

    Raises:
        CrawlError: such a table stands in the way.
    """
    wanted = {(one.database, one.name): one for one in found}
    stored = {(one.database, one.name): one for one in published}
    for name in wanted.keys() & stored.keys():
        if OWNER not in stored[name].parameters:
            raise CrawlError(
                f"{stored[name].qualified} is in the catalog, and no crawl of ours made it; rename or delete it there"
            )
    gone = [name for name, table in stored.items() if name not in wanted and OWNER in table.parameters]
    anew = [name for name, table in wanted.items() if name in stored and not _same_kind(table, stored[name])]
    create = [table for name, table in wanted.items() if name not in stored or name in anew]
    both = [(table, stored[name]) for name, table in wanted.items() if name in stored and name not in anew]
    changes = {(table.database, table.name): _partition_changes(table.partitions or (), ()) for table in create}
    changes |= {
        (table.database, table.name): _partition_changes(
            table.partitions, partitions.get((table.database, table.name), ())
        )
        for table, _ in both
        if table.partitions is not None
    }
    update = [
        table
        for table, before in both
        if table.definition != before.definition or changes.get((table.database, table.name))
    ]
    return Plan(
        databases=tuple(sorted({one.database for one in wanted.values()} - set(databases))),
        delete=tuple(sorted([*gone, *anew])),
        create=tuple(create),
        update=tuple(update),
        partitions={name: change for name, change in changes.items() if change},
        notes=(
            *(f"{one.qualified}: new" for one in create),
            *(note for one, before in both for note in _column_notes(one, before)),
            *(
                f"{one.qualified}: a newer commit of the lake, {one.parameters[ROWS]} rows"
                for one, before in both
                if one.format == "iceberg" and one.parameters[SOURCE] != before.parameters.get(SOURCE)
            ),
            *(f"{'.'.join(name)}: gone" for name in sorted(gone)),
            *(_partition_note(name, change) for name, change in changes.items() if change),
        ),
    )


def _same_kind(one: GlueTable, other: GlueTable) -> bool:
    """Whether the catalog can make one of the other: partition keys cannot be changed under partitions."""
    return (one.format, one.keys) == (other.format, other.keys)


def _partition_changes(found: Iterable[GluePartition], published: Iterable[GluePartition]) -> PartitionChanges:
    wanted = {one.values: one for one in found}
    stored = {one.values: one for one in published}
    return PartitionChanges(
        create=tuple(one for values, one in wanted.items() if values not in stored),
        update=tuple(one for values, one in wanted.items() if values in stored and stored[values] != one),
        delete=tuple(sorted(stored.keys() - wanted.keys())),
    )


def _column_notes(table: GlueTable, before: GlueTable) -> list[str]:
    def types(columns: Iterable[GlueColumn]) -> dict[str, str]:
        return {column.name: column.type for column in columns}

    now, then = types(table.columns), types(before.columns)
    return [
        *(f"{table.qualified}: new column {name} ({kind})" for name, kind in now.items() if name not in then),
        *(f"{table.qualified}: column {name} is gone" for name in then if name not in now),
        *(
            f"{table.qualified}: column {name} was {then[name]} and is {kind}"
            for name, kind in now.items()
            if then.get(name, kind) != kind
        ),
    ]


def _partition_note(name: Name, change: PartitionChanges) -> str:
    counts = {"new": change.create, "changed": change.update, "gone": change.delete}
    return f"{'.'.join(name)}: partitions " + ", ".join(f"{len(which)} {what}" for what, which in counts.items())
