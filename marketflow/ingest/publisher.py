"""What leaves a producer: Kafka's idempotent producer, every delivery counted, a loss never silent."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from marketflow.contracts.topics import MAX_MESSAGE_BYTES, OVERSIZE_KEPT_BYTES, Topic
from marketflow.errors import PublishError
from marketflow.ingest.logs import log
from marketflow.settings import Settings

Headers = Sequence[tuple[str, bytes]]

# The broker counts key, headers and the batch's own frame too; payloads from here on are kept in part.
MAX_PAYLOAD_BYTES = MAX_MESSAGE_BYTES - 64 * 1024
POLL_S = 0.05
TROUBLE_EVERY_S = 10.0


def producer_configuration(settings: Settings) -> dict[str, Any]:
    """Nothing is dropped while the broker is away: messages wait without limit of time, and the queue is bounded."""
    return {
        "bootstrap.servers": settings.bootstrap_servers,
        "client.id": "marketflow-producer",
        # An outage is told by error_cb, in our words and not once per attempt.
        "log_level": 2,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "zstd",
        "linger.ms": 5,
        # No limit: an outage is bridged by waiting. Only what the broker refuses for good is an error.
        "message.timeout.ms": 0,
        "message.max.bytes": MAX_MESSAGE_BYTES,
        # What the broker's latency needs at full speed; the queue that bridges an outage is the feed's own.
        "queue.buffering.max.messages": min(50_000, settings.feed_queue_messages),
        "queue.buffering.max.kbytes": 128 * 1024,
        "reconnect.backoff.max.ms": 2_000,
        "topic.metadata.refresh.interval.ms": 30_000,
    }


class KafkaPublisher:
    """Publishes payloads to the dataset's topics. Not for several threads at once.

    `on_delivery` is told the seconds from hand-over to acknowledgement of each message.
    """

    def __init__(self, settings: Settings, on_delivery: Callable[[float], None] | None = None) -> None:
        self._prefix = settings.topic_prefix
        self._producer = Producer({**producer_configuration(settings), "error_cb": self._troubled})
        self._on_delivery = on_delivery
        self._failure: str | None = None
        self._told_s = float("-inf")
        self.handed_over = 0
        self.delivered = 0
        self.oversize = 0

    @property
    def in_flight(self) -> int:
        """Messages handed over and not yet acknowledged."""
        return self.handed_over - self.delivered

    def try_publish(
        self,
        topic: Topic,
        key: bytes,
        value: bytes,
        headers: Headers,
        acknowledged: Callable[[], None] | None = None,
    ) -> bool:
        """Hand one message over; False when the local queue is full and it was not taken.

        `acknowledged` is called, from within `poll`, once Kafka has this very message.
        """
        if self._failure is not None:
            raise PublishError(self._failure)
        if len(value) > MAX_PAYLOAD_BYTES:
            value, headers = shortened(value, headers)
            self.oversize += 1
        try:
            self._producer.produce(
                topic.full_name(self._prefix),
                value=value,
                key=key,
                headers=list(headers),
                on_delivery=self._delivered if acknowledged is None else partial(self._delivered_one, acknowledged),
            )
        except BufferError:
            self._producer.poll(0)
            return False
        except KafkaException as error:
            raise PublishError(f"Kafka refuses a message for {topic.full_name(self._prefix)}: {error}") from error
        self.handed_over += 1
        return True

    def publish(self, topic: Topic, key: bytes, value: bytes, headers: Headers) -> None:
        """Hand one message over, waiting for room in the local queue."""
        while not self.try_publish(topic, key, value, headers):
            self._producer.poll(POLL_S)

    def poll(self) -> None:
        """Count the deliveries that are known by now; call it often. PublishError where one was lost for good."""
        self._producer.poll(0)
        if self._failure is not None:
            raise PublishError(self._failure)

    def flush(self, timeout_s: float) -> None:
        """Wait until every message is acknowledged; PublishError where some are not by then."""
        self._producer.flush(timeout_s)
        if self._failure is not None:
            raise PublishError(self._failure)
        if self.in_flight:
            raise PublishError(f"{self.in_flight} messages are not acknowledged by Kafka after {timeout_s:.0f} s")

    def _troubled(self, error: KafkaError) -> None:
        """The client's own word about the broker; a fatal one means that it can promise nothing any more."""
        if error.fatal():
            self._failure = self._failure or f"Kafka's client gave up: {error}"
        if time.monotonic() - self._told_s >= TROUBLE_EVERY_S:
            self._told_s = time.monotonic()
            log("kafka_trouble", error=error.str(), in_flight=self.in_flight)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        self.delivered += 1
        if error is not None:
            topic, key = message.topic(), message.key()
            self._failure = self._failure or f"Kafka lost a message of {topic}, key {key!r}: {error}"
        elif self._on_delivery is not None:
            self._on_delivery(message.latency() or 0.0)

    def _delivered_one(self, acknowledged: Callable[[], None], error: KafkaError | None, message: Message) -> None:
        self._delivered(error, message)
        if error is None:
            acknowledged()


def shortened(value: bytes, headers: Headers) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The first MiB of a payload that the topic cannot take, with headers that say what is missing."""
    digest = hashlib.sha256(value).hexdigest()
    marks = [("original_length", b"%d" % len(value)), ("sha256", digest.encode()), ("oversize", b"1")]
    return value[:OVERSIZE_KEPT_BYTES], [*headers, *marks]


def now_us() -> int:
    """Microseconds since the epoch, now."""
    return time.time_ns() // 1_000
