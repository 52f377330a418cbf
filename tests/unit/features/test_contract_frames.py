from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pytest

from marketflow.contracts.columns import Column, Table, Type
from marketflow.features import frames

SAMPLE = Table(
    layer="gold",
    name="sample",
    grain="one row per type",
    key=("text",),
    columns=(
        Column("text", Type.STRING, ""),
        Column("bytes", Type.BINARY, ""),
        Column("flag", Type.BOOLEAN, ""),
        Column("small", Type.INTEGER, ""),
        Column("large", Type.LONG, ""),
        Column("measure", Type.DOUBLE, "", nullable=True),
        Column("money", Type.MONEY, ""),
        Column("at", Type.TIMESTAMP, ""),
        Column("day", Type.DATE, ""),
    ),
    owner="test",
    description="",
)
EXACT = Decimal("12345678901234567890.123456789012345678")
NOON = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
ROW = {
    "unasked": 1,
    "day": NOON.date(),
    "at": NOON.astimezone(timezone(timedelta(hours=5))),
    "money": EXACT,
    "measure": None,
    "large": 2**62,
    "small": 7,
    "flag": True,
    "bytes": b"\xff",
    "text": "Ł",
}


def test_every_contract_type_has_a_polars_and_an_arrow_type() -> None:
    assert set(frames.POLARS_TYPES) == set(frames.ARROW_TYPES) == set(Type)


def test_conform_gives_the_contracts_columns_in_order_with_values_unchanged() -> None:
    result = frames.conform(pl.DataFrame([ROW]), SAMPLE)
    assert result.schema == frames.schema(SAMPLE)
    assert result.row(0) == ("Ł", b"\xff", True, 7, 2**62, None, EXACT, NOON, NOON.date())


def test_a_value_that_does_not_fit_is_an_error_and_never_null() -> None:
    with pytest.raises(pl.exceptions.InvalidOperationError):
        frames.conform(pl.DataFrame([ROW | {"small": 2**31}]), SAMPLE)
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        frames.conform(pl.DataFrame([ROW]).drop("text"), SAMPLE)


def test_arrow_has_the_types_spark_checks_and_the_contracts_nullability() -> None:
    result = frames.to_arrow(pl.DataFrame([ROW]), SAMPLE)
    assert [str(field.type) for field in result.schema] == [
        *("string", "binary", "bool", "int32", "int64", "double"),
        *("decimal128(38, 18)", "timestamp[us, tz=UTC]", "date32[day]"),
    ]
    assert [field.name for field in result.schema if field.nullable] == ["measure"]
    assert result.column("money").to_pylist() == [EXACT]
    assert frames.to_arrow(frames.empty(SAMPLE), SAMPLE).schema == result.schema


def test_a_null_in_a_column_that_allows_none_is_refused_by_arrow() -> None:
    with pytest.raises((pa.ArrowInvalid, ValueError), match="large"):
        frames.to_arrow(pl.DataFrame([ROW | {"large": None}]), SAMPLE)
