"""Kafka headers become bronze columns without a Python worker, and none is lost."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.lake import bronze, message_headers

TRADES = BRONZE_TABLES[0]
KAFKA = (
    "key binary, value binary, topic string, partition int, offset bigint, timestamp timestamp, timestampType int, "
    "headers array<struct<key: string, value: binary>>"
)
Headers = list[tuple[str, bytes | None]] | None


def landed(spark: SparkSession, *records: Headers, key: bytes | None = b"k") -> list[dict[str, Any]]:
    rows = [(key, b"v", "t", 0, i, datetime(2026, 1, 1, tzinfo=UTC), 0, headers) for i, headers in enumerate(records)]
    frame = bronze.columns(spark.createDataFrame(rows, KAFKA), TRADES)
    assert frame.columns == list(TRADES.column_names)
    assert [kind for _, kind in frame.dtypes] == [column.type.spark for column in TRADES.columns]
    found = [row.asDict() for row in frame.orderBy("offset").collect()]
    # Spark hands out times without a zone, in this machine's
    return [{n: v.astimezone(UTC) if isinstance(v, datetime) else v for n, v in row.items()} for row in found]


def test_each_header_lands_in_the_column_of_its_name_and_type(spark: SparkSession) -> None:
    sent = {
        "schema_version": "1",
        "venue": "coingecko",
        "channel": "markets",
        "received_at": "1783425600123456",
        "connection_id": "c-1",
        "origin": "simulated",
        "request": "/coins/markets?page=1",
        "http_status": "200",
        "product_id": "BTC-USD",
        "vs_currency": "usd",
        "poll_id": "p-1",
        "poll_started_at": "1783425600000001",
        "page": "2",
        "reconstructed": "1",
        "oversize": "0",
        "original_length": "9000000000",
        "sha256": "ab" * 32,
        "interval": "15m",
    }
    (row,) = landed(spark, [(name, value.encode()) for name, value in sent.items()])
    times = {
        "received_at": datetime(2026, 7, 7, 12, 0, 0, 123456, UTC),
        "poll_started_at": datetime(2026, 7, 7, 12, 0, 0, 1, UTC),
    }
    typed = {"http_status": 200, "page": 2, "reconstructed": True, "oversize": False, "original_length": 9_000_000_000}
    assert {name: row[name] for name in sent} == sent | times | typed
    assert list(json.loads(row["headers"]).items()) == list(sent.items())


MALFORMED: list[tuple[str, bytes | None]] = [
    ("received_at", b"yesterday"),
    ("received_at", b"-1"),  # before 1970: no payload arrived then
    ("received_at", b" 1783425600123456"),
    ("received_at", b"253402300800000000"),  # the year 10000, which no reader can show
    ("received_at", b"9" * 30),
    ("http_status", b"2e2"),
    ("http_status", b"99999999999"),
    ("page", b"1.0"),
    ("oversize", b"yes"),
    ("original_length", b""),
    ("venue", b"\xff\xfe"),
    ("venue", None),
]


@pytest.fixture(scope="module")
def malformed(spark: SparkSession) -> dict[tuple[str, bytes | None], dict[str, Any]]:
    """Each malformed header's row, of one query: Spark's planning costs more than the rows."""
    rows = landed(spark, *([("channel", b"matches"), bad] for bad in MALFORMED))
    return dict(zip(MALFORMED, rows, strict=True))


@pytest.mark.parametrize(("name", "text"), MALFORMED)
def test_a_malformed_header_is_null_in_its_column_and_kept_in_headers(
    malformed: dict[tuple[str, bytes | None], dict[str, Any]], name: str, text: bytes | None
) -> None:
    row = malformed[name, text]
    assert (row[name], row["channel"]) == (None, "matches")
    assert kept(row["headers"]) == [("channel", b"matches"), (name, text)]


def test_a_record_without_headers_has_null_in_every_header_column(spark: SparkSession) -> None:
    for row in landed(spark, None, []):
        filled = {name for name, value in row.items() if value is not None}
        assert filled - {"headers"} == {
            "topic", "partition", "offset", "key", "value", "kafka_timestamp", "ingested_at",
        }  # fmt: skip
        assert message_headers.read([row["headers"]]) == ([{}], {})


def test_a_repeated_header_is_kept_twice_and_its_last_value_counts(spark: SparkSession) -> None:
    sent: Headers = [("venue", b"first"), ("channel", b'with "quotes"'), ("venue", b"last")]
    (row,) = landed(spark, sent)
    assert row["venue"] == "last"
    assert kept(row["headers"]) == sent
    assert message_headers.read([row["headers"]]) == ([{"venue": "last", "channel": 'with "quotes"'}], {})


def test_a_key_that_is_not_text_is_null(spark: SparkSession) -> None:
    assert landed(spark, [], key=b"\xff")[0]["key"] is None
    assert landed(spark, [], key="Ω|BTC-USD".encode())[0]["key"] == "Ω|BTC-USD"


names = st.one_of(st.sampled_from(["venue", "page"]), st.text(st.characters(codec="utf-8"), min_size=1, max_size=5))
header_lists = st.lists(st.tuples(names, st.one_of(st.none(), st.binary(max_size=6), st.text(max_size=4).map(
    lambda text: text.encode("utf-8", "replace")))), max_size=5)  # fmt: skip


@given(st.lists(header_lists.filter(lambda headers: not any(";base64" in name for name, _ in headers)), min_size=40))
@settings(max_examples=8, deadline=None)
def test_all_headers_can_be_read_back_byte_for_byte(spark: SparkSession, records: list[Headers]) -> None:
    rows = landed(spark, *records)
    assert [kept(row["headers"]) for row in rows] == records


def kept(text: str) -> list[tuple[str, bytes | None]]:
    """The headers as they were sent, read back from the column alone."""

    def pair(name: str, value: str | None) -> tuple[str, bytes | None]:
        if name.endswith(";base64"):
            return name.removesuffix(";base64"), base64.b64decode(value or "")
        return name, None if value is None else value.encode()

    return [pair(name, value) for name, value in json.loads(text, object_pairs_hook=list)]
