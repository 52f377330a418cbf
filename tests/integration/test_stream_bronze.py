"""Bronze holds what Kafka holds, byte for byte, judged by Kafka's own client and PyIceberg."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from pyspark.sql import SparkSession

from marketflow.contracts import silver as silver_contracts
from marketflow.contracts.bronze import BRONZE_TABLES
from marketflow.contracts.topics import CANDLES, TOPICS, TRADES, Topic
from marketflow.lake import bronze, readers, silver
from marketflow.lake.session import table_name
from marketflow.lake.tables import apply_contracts
from marketflow.settings import Settings
from marketflow.stack import kafka, postgres
from marketflow.warehouse import schema
from tests.candle_pages import EXCHANGE, EXCHANGE_HEADERS, KLINES, KLINES_HEADERS
from tests.stream_stage import bronze_rows, producer


@pytest.fixture(scope="module")
def own(embedded: Settings, lake: SparkSession) -> Settings:
    """Topics, tables and checkpoints that no other test writes to."""
    settings = embedded.model_copy(update={"dataset": "live"})
    return made(settings, lake)


def made(settings: Settings, lake: SparkSession) -> Settings:
    postgres.bootstrap(settings)
    schema.apply(settings)
    kafka.create_topics(settings)
    apply_contracts(lake, settings)
    return settings


def drain(spark: SparkSession, settings: Settings) -> None:
    for query in bronze.start_queries(spark, settings, available_now=True):
        assert query.awaitTermination(180)
        assert query.exception() is None


def consumed(settings: Settings, topic: Topic) -> dict[tuple[int, int], tuple[Any, ...]]:
    """(partition, offset) → key, value, Kafka time in ms and headers, by an independent consumer."""
    name = topic.full_name(settings.topic_prefix)
    client = Consumer(
        {"bootstrap.servers": settings.bootstrap_servers, "group.id": "test", "enable.partition.eof": True}
    )
    client.assign([TopicPartition(name, number, OFFSET_BEGINNING) for number in range(topic.partitions)])
    found, ended = {}, 0
    while ended < topic.partitions:
        message = client.poll(30)
        assert message is not None
        if message.error():
            ended += 1
            continue
        place = (message.partition(), message.offset())
        found[place] = (message.key(), message.value(), message.timestamp()[1], message.headers() or [])
    client.close()
    return found


def odd_messages(count: int) -> list[dict[str, Any]]:
    chance = random.Random(1)
    values = [None, b"", b"\x00\xff\xfe", "é😀\u2028".encode(), b'{"type":"match"}', bytes(range(256)), b"x" * 300_000]
    headers: list[list[tuple[str, bytes | None]]] = [
        [],
        [("venue", b"coinbase_exchange"), ("received_at", b"1783425600123456")],
        [("venue", b"\xff\xfe\x00"), ("page", b"two"), ('Ω "quoted"\n', "ß\\".encode())],
        [("venue", b"a"), ("venue", b"b"), ("venue", None)],
        [(f"h{number}", bytes([number])) for number in range(40)],
    ]
    return [
        {"value": chance.choice(values), "headers": chance.choice(headers), "key": chance.choice([None, b"", b"v|P"])}
        for _ in range(count)
    ]


def test_every_record_lands_once_byte_for_byte(own: Settings, lake: SparkSession) -> None:
    client = producer(own)
    # a record's own time must be recent: Kafka deletes by it
    first_ms = int(time.time() * 1000) - 100_000
    for topic in TOPICS:
        for number, message in enumerate(odd_messages(300)):
            name = topic.full_name(own.topic_prefix)
            client.produce(name, partition=number % topic.partitions, timestamp=first_ms + number, **message)
    assert client.flush(60) == 0
    drain(lake, own)
    for topic in TOPICS:
        sent = consumed(own, topic)
        rows = bronze_rows(own, topic).to_pylist()
        assert len(rows) == len(sent) == 300
        landed = {(row["partition"], row["offset"]): row for row in rows}
        assert landed.keys() == sent.keys()
        for place, (key, value, time_ms, headers) in sent.items():
            row = landed[place]
            assert (row["topic"], row["value"]) == (topic.full_name(own.topic_prefix), value)
            assert row["key"] == (None if key is None else key.decode())
            assert row["kafka_timestamp"] == datetime.fromtimestamp(time_ms / 1000, UTC)
            assert len(json.loads(row["headers"] or "{}", object_pairs_hook=list)) == len(headers)
        assert len({row["ingested_at"] for row in rows}) == 1


def test_a_drain_with_nothing_new_writes_no_snapshot_and_a_small_batch_one_file(
    own: Settings, lake: SparkSession
) -> None:
    drain(lake, own)
    before = {table: len(readers.snapshots(own, table)) for table in BRONZE_TABLES}
    drain(lake, own)
    assert {table: len(readers.snapshots(own, table)) for table in BRONZE_TABLES} == before

    client = producer(own)
    for number in range(2_000):
        client.produce(TRADES.full_name(own.topic_prefix), str(number).encode(), partition=number % TRADES.partitions)
    assert client.flush(60) == 0
    drain(lake, own)
    files = lake.sql("select record_count from lake.live_bronze.trades_raw.files").collect()
    assert sorted(row.record_count for row in files)[-1] == 2_000
    assert len(readers.snapshots(own, "bronze.trades_raw")) == before[BRONZE_TABLES[0]] + 1


def test_a_batch_replayed_after_its_commit_adds_nothing_and_keeps_its_time(own: Settings, lake: SparkSession) -> None:
    """The kill between Iceberg's commit and the checkpoint's: the last batch's entry in commits/ is taken away."""
    drain(lake, own)
    before = bronze_rows(own, TRADES)
    folder = own.home / "checkpoints" / "live" / "bronze_trades_raw" / "commits"
    last = max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    last.unlink()
    last.with_name(f".{last.name}.crc").unlink()
    drain(lake, own)
    after = bronze_rows(own, TRADES)
    assert after.num_rows == before.num_rows
    assert after.sort_by([("partition", "ascending"), ("offset", "ascending")]).equals(
        before.sort_by([("partition", "ascending"), ("offset", "ascending")])
    )
    assert last.exists()


def test_a_batch_replayed_before_its_commit_has_the_time_of_its_first_try(own: Settings, lake: SparkSession) -> None:
    """The kill before Iceberg's commit: the same batch runs again from its offset log and writes the time in it."""
    client = producer(own)
    client.produce(TRADES.full_name(own.topic_prefix), b"again", partition=0)
    assert client.flush(30) == 0
    drain(lake, own)
    name = "lake.live_bronze.trades_raw"
    (first,) = (row for row in bronze_rows(own, TRADES).to_pylist() if row["value"] == b"again")
    parent = lake.sql(f"select parent_id from {name}.snapshots order by committed_at desc limit 1").collect()[0][0]
    lake.sql(f"call lake.system.set_current_snapshot('live_bronze.trades_raw', {parent})")
    folder = own.home / "checkpoints" / "live" / "bronze_trades_raw" / "commits"
    last = max((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    last.unlink()
    last.with_name(f".{last.name}.crc").unlink()
    drain(lake, own)
    (second,) = (row for row in bronze_rows(own, TRADES).to_pylist() if row["value"] == b"again")
    assert second == first


def test_a_lake_of_the_version_before_candles_is_brought_on_with_its_rows_and_its_checkpoints(
    embedded: Settings, lake: SparkSession
) -> None:
    settings = made(embedded.model_copy(update={"dataset": "replay"}), lake)
    # as that version left it: no silver.candles, and bronze without the header's column
    lake.sql(f"drop table {table_name(settings, silver_contracts.CANDLES)} purge")
    for table in BRONZE_TABLES:
        lake.sql(f"alter table {table_name(settings, table)} drop column `interval`")
    client = producer(settings)

    def send(value: bytes, headers: dict[str, str]) -> None:
        name = CANDLES.full_name(settings.topic_prefix)
        client.produce(name, value, headers=[(name, text.encode()) for name, text in headers.items()])
        assert client.flush(30) == 0

    send(EXCHANGE, EXCHANGE_HEADERS)
    with pytest.MonkeyPatch.context() as patch:
        before = [replace(table, columns=table.columns[:-1]) for table in BRONZE_TABLES]
        patch.setattr(bronze, "BRONZE_TABLES", before)
        drain(lake, settings)
    assert apply_contracts(lake, settings) == {
        **{table.qualified: ["added interval"] for table in BRONZE_TABLES},
        "silver.candles": ["created"],
    }
    send(KLINES, KLINES_HEADERS)
    drain(lake, settings)
    with readers.duckdb(settings) as connection:
        rows = connection.execute('select "offset", venue, interval from bronze.candles_raw order by 1').fetchall()
    assert rows == [(0, "coinbase_exchange", None), (1, "binance", "1m")]
    # silver reads all headers as they were received, so the message from before is as good as one from after
    (commit,) = silver.advance(lake, settings, silver.SOURCES["silver.candles"])
    assert (commit.accounting.messages, commit.accounting.accepted, commit.accounting.rejected) == (2, 4, 2)
    assert readers.load(settings, "silver.candles").num_rows == 4
