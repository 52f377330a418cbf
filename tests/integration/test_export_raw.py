"""The raw export of bronze: every record's bytes in lines, and the same records in Kafka again by replay."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import fresh_tables
import pytest
from catalog_stage import Bucket
from confluent_kafka import Consumer, TopicPartition
from lake_rows import NOON, append, rows
from pyspark.sql import SparkSession

from marketflow.catalog.export_raw import export_raw
from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.contracts.topics import PRICES, TRADES, Topic
from marketflow.errors import ConfigurationError
from marketflow.ingest.replay import replay_files
from marketflow.settings import Settings
from marketflow.stack import kafka, replay_source

TABLES = {table.name: table for table in BRONZE_TABLES}
PAYLOADS = [
    b'{"type":"match"}',
    "naïve ü\n\r\t\u2028".encode(),
    b"\xff\xfe\x00",
    b"",
    b'"a text"',
    b"[1,\r\n2]",
    b"null",
]


@pytest.fixture
def bucket(lake: SparkSession, embedded: Settings) -> Iterator[Bucket]:
    """Empty bronze and an empty export."""
    fresh_tables.empty(lake, embedded, BRONZE_TABLES)
    made = Bucket(embedded)
    made.empty()
    yield made
    made.empty()


def records(topic: Topic, start: int, count: int, hour: int) -> Any:
    headers = [{"venue": "binance", "channel": "trade", "origin": "live", "n": str(n), "ü": "\n"} for n in range(count)]
    return rows(
        TABLES[topic.bronze],
        count,
        start,
        topic=[f"sim.{topic.name}"] * count,
        partition=[0] * count,
        offset=list(range(start, start + count)),
        key=[f"binance|{n % 2}" for n in range(count)],
        value=[PAYLOADS[n % len(PAYLOADS)] for n in range(count)],
        ingested_at=[NOON + timedelta(hours=hour)] * count,
        headers=[json.dumps(one) for one in headers],
    )


def put(lake: SparkSession, bucket: Bucket, topic: Topic, start: int, count: int, hour: int) -> list[dict[str, Any]]:
    data = records(topic, start, count, hour)
    append(lake, bucket.settings, TABLES[topic.bronze], data)
    return data.to_pylist()


def lines(bucket: Bucket, day: str) -> list[dict[str, Any]]:
    prefix = f"sim/export/raw/{TRADES.name}/ingest_date={day}/"
    bodies = [bucket.client.get_object(Bucket="lake", Key=key)["Body"].read() for key in sorted(bucket.keys(prefix))]
    return [json.loads(text) for body in bodies for text in body.splitlines()]


def test_days_are_lines_in_order_in_parts_and_only_a_changed_day_is_written_again(
    lake: SparkSession, bucket: Bucket
) -> None:
    def export() -> tuple[int, int, int]:
        report = export_raw(bucket.settings, bucket.client, TRADES, part_bytes=2_000)
        return report.written, report.unchanged, report.rows

    first = put(lake, bucket, TRADES, 0, 20, hour=0)
    other = put(lake, bucket, TRADES, 20, 3, hour=12)
    assert export() == (2, 0, 23)
    assert [one["offset"] for one in lines(bucket, "2026-11-20")] == [row["offset"] for row in first]
    assert [one["offset"] for one in lines(bucket, "2026-11-21")] == [row["offset"] for row in other]
    parts = bucket.keys(f"sim/export/raw/{TRADES.name}/ingest_date=2026-11-20/")
    assert parts[0].endswith("/part-00000.jsonl")
    assert len(parts) > 1
    assert export() == (0, 2, 0)
    # a part that somebody changed is written again
    bucket.put_bytes(parts[1], b"{}")
    assert export() == (1, 1, 20)
    assert [one["offset"] for one in lines(bucket, "2026-11-20")] == [row["offset"] for row in first]
    put(lake, bucket, TRADES, 23, 1, hour=13)
    assert export() == (1, 1, 4)
    assert [one["offset"] for one in lines(bucket, "2026-11-21")] == [20, 21, 22, 23]
    # parts of a larger size: those that are no longer, go
    report = export_raw(bucket.settings, bucket.client, TRADES)
    assert report.written == 2
    assert len(bucket.keys(f"sim/export/raw/{TRADES.name}/ingest_date=2026-11-20/")) == 1


def test_a_replay_of_the_export_publishes_the_same_bytes_keys_and_headers(
    lake: SparkSession, bucket: Bucket, tmp_path: Path
) -> None:
    put_rows = {topic: put(lake, bucket, topic, 0, 30, hour=0) for topic in (TRADES, PRICES)}
    for topic in put_rows:
        export_raw(bucket.settings, bucket.client, topic, part_bytes=1_000)
    target = bucket.settings.model_copy(update={"dataset": "replay", "home": bucket.settings.home})
    kafka.create_topics(target)
    before = {topic: consumed(target, topic) for topic in put_rows}
    with replay_source.local(target, ["s3://lake/sim/export/raw/"]) as paths:
        summary = replay_files(target, paths)
        kept = paths[0]
    assert not kept.exists()
    assert summary.messages == 60
    for topic, expected in put_rows.items():
        # other tests of this stack have replayed other keys
        found = list((Counter(consumed(target, topic)) - Counter(before[topic])).elements())
        assert sorted(found) == sorted(
            (row["key"], row["value"], json.dumps(json.loads(row["headers"]) | {"origin": "replay"}, sort_keys=True))
            for row in expected
        )
        # of one key in the order in which they came
        for key in ("binance|0", "binance|1"):
            numbers = [int(json.loads(said)["n"]) for one, _, said in consumed(target, topic) if one == key]
            assert numbers == sorted(numbers)


def test_an_address_with_nothing_below_it_and_a_missing_file_are_named(embedded: Settings) -> None:
    with (
        pytest.raises(ConfigurationError, match="s3://lake/nowhere/: nothing is there"),
        replay_source.local(embedded, ["s3://lake/nowhere/"]),
    ):
        pass
    with (
        pytest.raises(ConfigurationError, match=r"s3://elsewhere/x cannot be listed .*; the lake's bucket is lake"),
        replay_source.local(embedded, ["s3://elsewhere/x"]),
    ):
        pass
    with (
        pytest.raises(ConfigurationError, match=r"no such file: absent\.ndjson"),
        replay_source.local(embedded, ["absent.ndjson"]),
    ):
        pass


def consumed(settings: Settings, topic: Topic) -> list[tuple[str, bytes, str]]:
    """Key, value and headers of every record of the topic, by partition and offset."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "judge"})
    name = topic.full_name(settings.topic_prefix)
    found: list[tuple[str, bytes, str]] = []
    try:
        for partition in range(topic.partitions):
            low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=30)
            consumer.assign([TopicPartition(name, partition, low)])
            for _ in range(low, high):
                record = consumer.poll(30)
                assert record is not None
                assert record.error() is None
                headers = {key: value.decode() for key, value in record.headers() or ()}
                found.append((record.key().decode(), record.value(), json.dumps(headers, sort_keys=True)))
    finally:
        consumer.close()
    return found
