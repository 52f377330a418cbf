"""A plan, carried out, makes the catalog say what was found, and touches nothing that is not ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.catalog.crawl_plan import plan
from marketflow.catalog.glue_tables import (
    OWNER,
    GlueColumn,
    GluePartition,
    GlueTable,
    partition_input,
    partition_of,
    table_input,
    table_of,
)
from marketflow.errors import CrawlError

NAMES = st.sampled_from(["a", "b", "c"])
# small sets are drawn in a tenth of the time of large ones, and meet each other more often
COLUMNS = st.lists(
    st.builds(GlueColumn, st.sampled_from("pqrs"), st.sampled_from(["bigint", "double"])),
    unique_by=lambda one: one.name,
    max_size=3,
).map(tuple)
PARTITIONS = st.lists(
    st.builds(
        GluePartition,
        values=st.tuples(st.sampled_from(["BTC-USD", "ETH-USD"]), st.sampled_from(["05", "06", "07"])),
        location=st.sampled_from(["s3://lake/x/", "s3://lake/y/"]),
        columns=COLUMNS,
        parameters=st.dictionaries(st.just("recordCount"), st.sampled_from(["1", "2"])),
    ),
    unique_by=lambda one: one.values,
    max_size=3,
).map(tuple)


def table(name: str, partitions: tuple[GluePartition, ...] | None, **changes: object) -> GlueTable:
    keys = (GlueColumn("product_id", "string"), GlueColumn("hour", "int"))
    made = GlueTable("sim_export", name, "parquet", "s3://lake/x/", (), keys, {OWNER: "sim"}, partitions)
    return replace(made, **changes)  # type: ignore[arg-type]


TABLES = st.lists(
    st.builds(
        lambda name, columns, count, partitions: table(
            name, partitions, columns=columns, parameters={OWNER: "sim", "recordCount": count}
        ),
        NAMES,
        COLUMNS,
        st.sampled_from(["1", "2"]),
        PARTITIONS,
    ),
    unique_by=lambda one: one.name,
    max_size=2,
)


class Catalog:
    """The catalog the obvious way: dictionaries, and what each step of a plan does to them."""

    def __init__(self, tables: list[GlueTable]) -> None:
        self.databases = {one.database for one in tables}
        self.tables = {(one.database, one.name): replace(one, partitions=None) for one in tables}
        self.partitions = {
            (one.database, one.name): {part.values: part for part in one.partitions or ()} for one in tables
        }

    def carry_out(self, found: list[GlueTable]) -> bool:
        known = {name: list(parts.values()) for name, parts in self.partitions.items()}
        work = plan(found, self.tables.values(), self.databases, known)
        assert not self.databases & set(work.databases)
        self.databases |= set(work.databases)
        for name in work.delete:
            del self.tables[name], self.partitions[name]
        for one in work.create:
            assert (one.database, one.name) not in self.tables
            self.partitions[one.database, one.name] = {}
        for one in (*work.create, *work.update):
            name = one.database, one.name
            self.tables[name] = replace(one, partitions=None)
            changes = work.partitions.get(name)
            stored = self.partitions[name]
            for values in changes.delete if changes else ():
                del stored[values]
            for part in changes.update if changes else ():
                assert part.values in stored
                stored[part.values] = part
            for part in changes.create if changes else ():
                assert part.values not in stored
                stored[part.values] = part
        return bool(work)

    def says(self) -> dict[object, object]:
        return {name: (one.definition, self.partitions[name]) for name, one in self.tables.items()}


@given(TABLES, TABLES)
def test_whatever_was_published_a_plan_leads_to_what_was_found_and_a_second_one_to_nothing(
    before: list[GlueTable], found: list[GlueTable]
) -> None:
    catalog = Catalog(before)
    catalog.carry_out(found)
    assert catalog.says() == Catalog(found).says()
    assert catalog.carry_out(found) is False


@given(TABLES, TABLES)
def test_a_table_that_no_crawl_made_is_left_alone(ours: list[GlueTable], found: list[GlueTable]) -> None:
    foreign = table("theirs", (GluePartition(("BTC-USD", "05"), "s3://theirs/", (), {}),), parameters={})
    catalog = Catalog([*ours, foreign])
    catalog.carry_out(found)
    assert catalog.says() == Catalog([*found, foreign]).says()


def test_a_table_that_no_crawl_made_is_not_overwritten_by_one_of_its_name() -> None:
    with pytest.raises(CrawlError, match=r"sim_export\.features is in the catalog, and no crawl of ours made it"):
        plan([table("features", ())], [table("features", None, parameters={})], {"sim_export"}, {})


def test_what_was_not_looked_at_stays_as_it_is() -> None:
    published = table("features", None)
    work = plan([published], [published], {"sim_export"}, {})
    assert not work
    assert not work.partitions


def test_other_partition_keys_make_the_table_anew_with_all_its_partitions() -> None:
    part = GluePartition(("BTC-USD",), "s3://lake/x/", (), {})
    found = table("features", (part,), keys=(GlueColumn("product_id", "string"),))
    old = GluePartition(("BTC-USD", "05"), "s3://lake/x/", (), {})
    work = plan([found], [table("features", None)], {"sim_export"}, {("sim_export", "features"): [old]})
    assert work.delete == (("sim_export", "features"),)
    assert work.create == (found,)
    assert work.partitions["sim_export", "features"].create == (part,)


def test_notes_name_columns_that_came_went_and_changed() -> None:
    before = table("features", None, columns=(GlueColumn("p", "bigint"), GlueColumn("q", "double")))
    found = table("features", (), columns=(GlueColumn("p", "double"), GlueColumn("r", "bigint")))
    assert plan([found], [before], {"sim_export"}, {}).notes == (
        "sim_export.features: new column r (bigint)",
        "sim_export.features: column q is gone",
        "sim_export.features: column p was bigint and is double",
    )


@given(TABLES)
def test_the_apis_shapes_say_the_same_as_ours(tables: list[GlueTable]) -> None:
    for one in tables:
        told = {**table_input(one), "DatabaseName": one.database, "VersionId": "3", "CatalogId": "1"}
        assert table_of(told) == replace(one, partitions=None)
        for part in one.partitions or ():
            assert partition_of({**partition_input(part), "DatabaseName": "x"}) == part


def test_an_iceberg_table_is_told_by_its_parameter_and_has_no_parquet_reader() -> None:
    one = GlueTable("sim_gold", "bars", "iceberg", "s3://lake/w/", (), (), {"table_type": "ICEBERG"})
    told = table_input(one)
    assert set(told["StorageDescriptor"]) == {"Columns", "Location"}
    assert table_of({"DatabaseName": "sim_gold", **told}) == one
