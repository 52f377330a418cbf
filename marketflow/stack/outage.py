"""How long the lake may stay away before Kafka forgets something: the promised outage is 72 hours."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from marketflow.contracts.topics import TOPICS
from marketflow.settings import PROMISED_OUTAGE_HOURS, Settings


@dataclass(frozen=True, slots=True)
class Outage:
    """Hours until retention by time or by size would drop the oldest unread record, and what to warn about."""

    hours_left: float
    limited_by: str
    warnings: list[str] = field(default_factory=list)


def _consumer(settings: Settings) -> Consumer:
    options = {"bootstrap.servers": settings.bootstrap_servers, "group.id": "marketflow-status", "log_level": 2}
    return Consumer({**options, "enable.auto.commit": False, "auto.offset.reset": "earliest"})


def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Partition → next offset of a topic. A topic that is not there gives an empty dict."""
    consumer = _consumer(settings)
    try:
        found = consumer.list_topics(topic, timeout=5).topics.get(topic)
        partitions = list(found.partitions) if found else []
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=5)[1] for p in partitions}
    finally:
        consumer.close()


def _oldest(consumer: Consumer, topic: str, partitions: int) -> datetime | None:
    """Kafka time of the oldest record that is still there."""
    times = []
    for partition in range(partitions):
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5)
        if low == high:
            continue
        consumer.assign([TopicPartition(topic, partition, low)])
        message = consumer.poll(5)
        if message is not None and message.error() is None:
            times.append(datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC))
    return min(times, default=None)


def _stored_bytes(settings: Settings, topic: str) -> int:
    folders = Path(settings.home / "kafka" / "data").glob(f"{topic}-*")
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


def outage_left(settings: Settings) -> Outage:
    """The shortest of the topics' bridges, from the rate at which each has grown so far."""
    share = settings.kafka_retention_bytes / sum(topic.partitions for topic in TOPICS)
    hours, limited_by = float(settings.kafka_retention_hours), "retention by time"
    consumer = _consumer(settings)
    try:
        for topic in TOPICS:
            name = topic.full_name(settings.topic_prefix)
            oldest = _oldest(consumer, name, topic.partitions)
            if oldest is None:
                continue
            grown_hours = max((datetime.now(UTC) - oldest).total_seconds() / 3600, 1 / 60)
            bytes_per_hour = _stored_bytes(settings, name) / grown_hours
            by_size = share * topic.partitions / bytes_per_hour if bytes_per_hour else hours
            if by_size < hours:
                hours, limited_by = by_size, f"retention by size of {name}"
    finally:
        consumer.close()
    warnings = []
    if hours < PROMISED_OUTAGE_HOURS / 2:
        warnings.append(
            f"Kafka could bridge only {hours:.0f} h of outage ({limited_by}); promised are {PROMISED_OUTAGE_HOURS} h: "
            "raise MARKETFLOW_KAFKA_RETENTION_BYTES"
        )
    return Outage(hours, limited_by, warnings)
