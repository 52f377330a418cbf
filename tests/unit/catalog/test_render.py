"""Rows as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from marketflow.catalog import render


def test_numbers_stand_right_text_left_and_zeros_are_cut() -> None:
    text = render.table(("name", "price"), [("btc", Decimal("63400.500000")), ("pepe", Decimal("0.00000339523"))])
    assert text.splitlines() == [
        "name          price",
        "----  -------------",
        "btc         63400.5",
        "pepe  0.00000339523",
        "(2 rows)",
    ]


def test_a_null_is_empty_a_time_is_to_the_second_and_bytes_are_text() -> None:
    at = datetime(2026, 11, 21, 4, 15, 9, 123456, tzinfo=UTC)
    assert [render.cell(value) for value in (None, at, b'{"a":1}\xff', 1.5e-9, Decimal("100"))] == [
        "",
        "2026-11-21 04:15:09",
        '{"a":1}\\xff',
        "1.5e-09",
        "100",
    ]


def test_no_rows_are_said_so() -> None:
    assert render.table(("a",), []).endswith("(0 rows)")
    assert render.records([]) == "(0 rows)"


def test_a_column_that_shares_its_name_keeps_its_value_under_another() -> None:
    assert render.distinct(("a", "b", "a", "a_2", "a")) == ["a", "b", "a_2", "a_2_2", "a_3"]


def test_an_age_is_said_in_the_unit_that_fits() -> None:
    assert [render.age(seconds) for seconds in (7, 99, 100, 75 * 60, 3 * 3600, 9 * 86400)] == [
        "7 s",
        "99 s",
        "2 min",
        "75 min",
        "3.0 h",
        "9 days",
    ]
