"""A table's columns are those on which its files agree; where they do not, column and file are named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.catalog.crawl_parquet import agreed
from marketflow.catalog.footers import Footer
from marketflow.catalog.glue_tables import GlueColumn, GluePartition
from marketflow.catalog.layouts import FEATURES
from marketflow.catalog.objects import DataObject, digest
from marketflow.errors import CrawlError

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
BTC = ("BTC-USD", "2026-11-20", "05")


def columns(**types: str) -> tuple[GlueColumn, ...]:
    return tuple(GlueColumn(name, kind) for name, kind in types.items())


def footer(key: str, minutes: int = 0, **types: str) -> Footer:
    return Footer(DataObject(key, 100, "e", NOON + timedelta(minutes=minutes)), columns(**types), 1)


def read(*footers: Footer) -> dict[str, Footer]:
    return {one.object.key: one for one in footers}


def test_new_columns_come_after_known_ones_in_the_order_in_which_files_brought_them() -> None:
    files = read(footer("b", 2, z="int", a="int"), footer("a", 1, a="int", y="double"))
    assert agreed(FEATURES, {}, {}, files, columns(a="int", gone="int")) == columns(a="int", y="double", z="int")


def test_a_conflict_names_the_column_both_types_and_the_odd_file() -> None:
    files = read(*(footer(f"hour=0{n}/part-0.parquet", n, price="double") for n in range(5)))
    files |= read(footer("hour=07/part-0.parquet", 9, price="string", size="double"))
    with pytest.raises(
        CrawlError,
        match=r"features: nothing was published. column price is string in hour=07/part-0.parquet, "
        r"but double in hour=00/part-0.parquet \(of 5\)\. Write these files again",
    ):
        agreed(FEATURES, {}, {}, files, ())


def test_a_folder_that_was_not_opened_again_conflicts_by_its_file_too() -> None:
    old = GluePartition(BTC, "s3://lake/x/", columns(price="double"), {})
    folders = {BTC: [DataObject("hour=05/part-0.parquet", 1, "e", NOON)]}
    with pytest.raises(CrawlError, match=r"price is double in hour=05/part-0.parquet, but string in hour=06"):
        agreed(FEATURES, folders, {BTC: old}, read(footer("hour=06/part-0.parquet", price="string")), ())


def test_a_column_that_a_folder_names_is_refused() -> None:
    with pytest.raises(CrawlError, match=r"column hour of x\.parquet is what its folders are named by"):
        agreed(FEATURES, {}, {}, read(footer("x.parquet", hour="int")), ())


@given(st.lists(st.dictionaries(st.sampled_from("pqrs"), st.just("double"), min_size=1), min_size=1, max_size=6))
def test_the_columns_are_the_union_of_the_files_whatever_they_lack(files: list[dict[str, str]]) -> None:
    found = agreed(FEATURES, {}, {}, read(*(footer(f"{n}", n, **one) for n, one in enumerate(files))), ())
    assert {column.name for column in found} == {name for one in files for name in one}
    assert len(found) == len({column.name for column in found})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("x/product_id=BTC-USD/part-0.parquet", "its folders are not x/product_id=…/event_date=…/hour=…/"),
        ("x/hour=05/event_date=2026-11-20/product_id=A/part-0.parquet", "its folders are not"),
        ("x/part-0.parquet", "its folders are not"),
        ("x/product_id=A/event_date=2026-13-20/hour=05/f.parquet", "event_date=2026-13-20 is no date"),
        ("x/product_id=A/event_date=20261120/hour=05/f.parquet", "event_date=20261120 is no date"),
        ("x/product_id=A/event_date=2026-11-20/hour=five/f.parquet", "hour=five is no hour from 00 to 23"),
        ("x/product_id=A/event_date=2026-11-20/hour=24/f.parquet", "hour=24 is no hour from 00 to 23"),
        ("x/product_id=A/event_date=2026-11-20/hour=5/f.parquet", "hour=5 is no hour from 00 to 23"),
        (
            "x/product_id=A B/event_date=2026-11-20/hour=05/f.parquet",
            "x/product_id=A%20B/event_date=2026-11-20/hour=05/",
        ),
        ("x/product_id=/event_date=2026-11-20/hour=05/f.parquet", "product_id= is no string"),
    ],
)
def test_a_file_in_a_wrong_folder_is_named(key: str, said: str) -> None:
    with pytest.raises(CrawlError) as caught:
        FEATURES.values(key, "x/")
    assert key in str(caught.value)
    assert said in str(caught.value)


@given(st.text(min_size=1, max_size=12), st.dates(), st.integers(0, 23))
def test_a_folders_name_says_its_values_whatever_they_hold(product: str, day: object, hour: int) -> None:
    values = (product, str(day), f"{hour:02d}")
    path = FEATURES.path(values)
    assert path.count("/") == 3
    assert FEATURES.values(f"x/{path}part-0.parquet", "x/") == values


def test_a_digest_differs_by_key_size_etag_and_time() -> None:
    one = DataObject("k", 1, "e", NOON)
    others = [
        DataObject("l", 1, "e", NOON),
        DataObject("k", 2, "e", NOON),
        DataObject("k", 1, "f", NOON),
        DataObject("k", 1, "e", NOON + timedelta(seconds=1)),
    ]
    digests = {digest("1", objects=[each]) for each in (one, *others)} | {digest("2", objects=[one])}
    assert len(digests) == 6
