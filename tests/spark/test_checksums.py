"""A checksum tells two sets of rows apart exactly where a multiset of plain Python rows does."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

from pyspark.sql import SparkSession

from marketflow.lake.checksums import Checksum, of_rows

SCHEMA = "id bigint, side string, other string, price decimal(38,18), ratio double, bytes binary, flag boolean"
ROWS = [
    (1, "buy", None, Decimal("100.500000000000000001"), 0.5, b"\x00\x01", True),
    (2, "sell", "x", Decimal("100.5"), None, b"", False),
    (3, None, "buy", None, 1e-12, None, None),
    (3, None, "buy", None, 1e-12, None, None),
]


def with_row(place: int, **changes: object) -> list[tuple[object, ...]]:
    names = [column.split()[0] for column in SCHEMA.split(", ")]
    changed = dict(zip(names, ROWS[place], strict=True)) | changes
    return [*ROWS[:place], tuple(changed[name] for name in names), *ROWS[place + 1 :]]


VARIANTS = {
    "the same": ROWS,
    "in another order": ROWS[::-1],
    "one lost": ROWS[1:],
    "one doubled": [*ROWS, ROWS[0]],
    "one doubled in the place of another": [*ROWS[1:], ROWS[1]],
    "a last digit": with_row(0, price=Decimal("100.500000000000000002")),
    "a value in the column beside it": with_row(0, side=None, other="buy"),
    "a null that was a value": with_row(1, other=None),
    "a null of a double": with_row(2, ratio=None),
    "a null that is empty": with_row(1, bytes=None),
    "false where nothing was": with_row(2, flag=False),
    # of both rows the ids are changed: a sum of ids would not see it
    "two values exchanged": [(2, *ROWS[0][1:]), (1, *ROWS[1][1:]), *ROWS[2:]],
    "none at all": [],
}


def test_a_checksum_differs_exactly_where_the_rows_do_and_adds_up(spark: SparkSession) -> None:
    found = {name: of_rows(spark.createDataFrame(rows, SCHEMA).repartition(3)) for name, rows in VARIANTS.items()}
    same = {name for name, checksum in found.items() if checksum == found["the same"]}
    assert same == {name for name, rows in VARIANTS.items() if Counter(rows) == Counter(ROWS)}
    assert {name: checksum.rows for name, checksum in found.items()} == {n: len(rows) for n, rows in VARIANTS.items()}
    first = of_rows(spark.createDataFrame(ROWS[:1], SCHEMA))
    assert first + found["one lost"] == found["the same"]
    assert found["none at all"] == Checksum()
