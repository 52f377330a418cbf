"""Carried captures into a real Kafka: every message once, with its bytes, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from marketflow.catalog import crawl_iceberg, export_raw, layouts
from marketflow.contracts.topics import TOPICS
from marketflow.errors import ConfigurationError
from marketflow.ingest.replay import replay_files
from marketflow.settings import Settings
from marketflow.stack import fresh, kafka, replay, s3
from tests.integration.producer_stage import stored

CAPTURES = Path(__file__).parents[1] / "fixtures" / "captures"


@pytest.fixture(scope="module")
def replay_settings(embedded: Settings) -> Settings:
    """The same servers, dataset replay."""
    settings = embedded.model_copy(update={"dataset": "replay"})
    kafka.create_topics(settings)
    return settings


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


def test_an_emptied_dataset_has_nothing_left_in_the_bucket_and_others_keep_what_they_have(
    replay_settings: Settings,
) -> None:
    """Else raw holds the records of two replays, and a replay of it sends both."""
    client, bucket = s3.client(replay_settings), replay_settings.lake_bucket
    before = keys(replay_settings)

    def files_of(settings: Settings) -> set[str]:
        return {
            f"warehouse/{settings.namespace('silver')}/trades/data/x.parquet",
            f"{export_raw.prefix_of(settings, TOPICS[0])}ingest_date=2026-11-20/part-00000.jsonl",
            f"{layouts.FEATURES.prefix(settings)}_exported.json",
            f"{layouts.SILVER['trades'].prefix(settings)}product_id=BTC-USD/event_date=2026-11-20/part-0.parquet",
            f"{crawl_iceberg.copies_prefix(settings, settings.namespace('silver'), 'trades')}1.metadata.json",
        }

    # a name that only begins with it is another dataset's
    others = [replay_settings.model_copy(update={"dataset": name}) for name in ("sim", "replayed")]
    kept = set().union(*(files_of(other) for other in others))
    for key in files_of(replay_settings) | kept:
        client.put_object(Bucket=bucket, Key=key, Body=b"x")
    try:
        fresh.empty(replay_settings)
        assert {key for key in keys(replay_settings) if key.startswith(("replay/", "warehouse/replay_"))} == set()
        assert keys(replay_settings) >= kept | {key for key in before if "replay" not in key}
    finally:
        for key in kept:
            client.delete_object(Bucket=bucket, Key=key)
        kafka.create_topics(replay_settings)


@pytest.mark.parametrize("below", ["replay/export/raw/", "replay/export/raw/crypto.trades.raw/", "replay/", ""])
def test_a_replay_from_what_it_would_empty_first_is_refused(replay_settings: Settings, below: str) -> None:
    key = f"{export_raw.prefix_of(replay_settings, TOPICS[0])}ingest_date=2026-11-20/part-00000.jsonl"
    client, bucket = s3.client(replay_settings), replay_settings.lake_bucket
    client.put_object(Bucket=bucket, Key=key, Body=b"x")
    with pytest.raises(ConfigurationError, match="--fresh would delete"):
        replay.run(replay_settings, [f"s3://{bucket}/{below}"], fresh=True, say=lambda _: None)
    assert key in keys(replay_settings)
    client.delete_object(Bucket=bucket, Key=key)


def keys(settings: Settings) -> set[str]:
    """Every object of the bucket."""
    pages = s3.client(settings).get_paginator("list_objects").paginate(Bucket=settings.lake_bucket)
    return {one["Key"] for page in pages for one in page.get("Contents", ())}
