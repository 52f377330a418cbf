"""Carried captures into a real Kafka: every message once, with its bytes, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from marketflow.contracts.topics import TOPICS
from marketflow.ingest.replay import replay_files
from marketflow.settings import Settings
from marketflow.stack import kafka
from tests.integration.producer_stage import stored, until

CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"


@pytest.fixture(scope="module")
def replay_settings(embedded: Settings) -> Settings:
    """The same servers, dataset replay."""
    settings = embedded.model_copy(update={"dataset": "replay"})
    kafka.create_topics(settings)
    until(lambda: answered(settings), "leaders of the new topics")
    return settings


def answered(settings: Settings) -> bool:
    try:
        return bool(ends(settings))
    except KafkaException:
        return False


def ends(settings: Settings) -> dict[str, int]:
    """Records of each topic of the dataset, from the broker's own offsets."""
    consumer = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "judge"})
    try:
        return {
            name: sum(
                consumer.get_watermark_offsets(TopicPartition(name, partition))[1]
                for partition in range(topic.partitions)
            )
            for topic in TOPICS
            for name in [topic.full_name(settings.topic_prefix)]
        }
    finally:
        consumer.close()


def test_a_folder_of_captures_is_published_message_by_message(replay_settings: Settings) -> None:
    before = ends(replay_settings)
    told: dict[str, int] = {}
    summary = replay_files(
        replay_settings, [CAPTURES], vs_currency="usd", progress=lambda path, count: told.update({path.name: count})
    )
    assert summary.by_topic == {
        "replay.crypto.trades.raw": 556 + 107 + 2063 + 10215,
        "replay.crypto.ticker.raw": 107,
        "replay.crypto.prices.raw": 5,
        "replay.crypto.candles.raw": 0,
    }
    after = ends(replay_settings)
    assert {name: after[name] - before[name] for name in after} == summary.by_topic
    assert {file.path.name: file.messages for file in summary.files} == told
    assert sum(file.reconstructed for file in summary.files) == 10215


def test_the_bytes_of_a_capture_arrive_unchanged_and_in_order(replay_settings: Settings) -> None:
    path = CAPTURES / "coinbase" / "exchange-matches-btc-eth-2026-07-07.filtered.ndjson"
    key = "coinbase_exchange|ETH-USD"
    before = len(stored(replay_settings, "replay.crypto.trades.raw", key))
    replay_files(replay_settings, [path])
    records = stored(replay_settings, "replay.crypto.trades.raw", key)[before:]
    assert [record.value for record in records] == [
        line for line in path.read_bytes().splitlines() if b'"product_id":"ETH-USD"' in line
    ]
    assert {record.headers["origin"] for record in records} == {"replay"}
    assert all("reconstructed" not in record.headers for record in records)
