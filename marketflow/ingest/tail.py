"""What this venue published last, read from the end of its topic: the broker, not a file beside us, is the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from marketflow.contracts.topics import TRADES
from marketflow.errors import SetupError
from marketflow.ingest.gaps import holes_between
from marketflow.ingest.logs import log
from marketflow.settings import Settings
from marketflow.venues.feeds import PROTOCOLS
from marketflow.venues.seen import page_ids

# Records looked at per partition, deeper only while a product has not been found.
DEPTHS = (5_000, 50_000, 500_000)
# Trades of a product that begin a window are not judged: one that overtook them may lie just before it.
UNJUDGED_TRADES = 100
RETRY_S = 2.0


@dataclass(slots=True)
class Tail:
    """`last_ids`: highest trade_id per product. `holes`: ranges that the feed missed inside the window that was read.

    `brought`: ids of those holes that REST brought since.
    """

    last_ids: dict[str, int] = field(default_factory=dict)
    holes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    brought: dict[str, list[int]] = field(default_factory=dict)


def read_tail(
    settings: Settings, venue: str, products: Iterable[str], stopping: Callable[[], bool] = lambda: False
) -> Tail:
    """Read back from the end of the trades' topic until each product of a venue was seen, or the depth is spent.

    Waits while Kafka is away, until `stopping`; SetupError where the topic does not exist.
    """
    wanted = set(products)
    consumer = reader(settings)
    try:
        tail = Tail()
        for depth in DEPTHS:
            tail, whole = _read(consumer, venue, TRADES.full_name(settings.topic_prefix), depth, stopping)
            if whole or wanted <= tail.last_ids.keys() or stopping():
                break
        return tail
    finally:
        consumer.close()


def reader(settings: Settings) -> Consumer:
    """A consumer that is told where to read and remembers nothing."""
    return Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "marketflow-tail",  # never committed
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )


def _read(consumer: Consumer, venue: str, topic: str, depth: int, stopping: Callable[[], bool]) -> tuple[Tail, bool]:
    """The tail of that depth, and whether it was the whole topic."""
    windows = last_offsets(consumer, topic, depth, stopping)
    ids: dict[tuple[str, bool], list[int]] = {}
    fetched: dict[str, set[int]] = {}
    left = {partition: end for partition, (start, end) in windows.items() if start < end}
    consumer.assign([TopicPartition(topic, partition, windows[partition][0]) for partition in left])
    # Until the end as it was when we looked: on a topic that others write to, an end may never be met.
    while left and not stopping():
        for message in consumer.consume(5_000, timeout=0.2):
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            partition, next_offset = message.partition(), message.offset() + 1
            asked_for, found = trade_ids(message, venue)
            for product, trade_id in found:
                if asked_for:
                    fetched.setdefault(product, set()).add(trade_id)
                else:
                    ids.setdefault((product, windows[partition][0] == 0), []).append(trade_id)
            if next_offset >= left.get(partition, next_offset):
                left.pop(partition, None)
    consumer.unassign()
    tail = Tail()
    for (product, whole), seen in ids.items():
        judged = seen if whole else [each for each in seen if each > max(seen[:UNJUDGED_TRADES])]
        tail.last_ids[product] = max(max(seen), tail.last_ids.get(product, 0))
        holes = holes_between(judged)
        if holes:
            tail.holes[product] = holes
            # what was asked for fills holes, and says nothing of how far the feed came
            missing = {each for each in fetched.get(product, ()) if holes[0][0] <= each <= holes[-1][1]}
            tail.brought[product] = sorted(missing.difference(judged))
    return tail, all(start == 0 for start, _ in windows.values())


def last_offsets(
    consumer: Consumer, topic: str, depth: int, stopping: Callable[[], bool]
) -> dict[int, tuple[int, int]]:
    """Partition to first offset to read and end; waits while Kafka is away."""
    while True:
        try:
            metadata = consumer.list_topics(topic, timeout=5.0).topics[topic]
            if metadata.error is not None:
                raise SetupError(f"Kafka topic {topic} does not exist: `make up` creates it ({metadata.error})")
            windows = {}
            for partition in metadata.partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=5.0)
                windows[partition] = (max(low, high - depth), high)
            return windows
        except KafkaException as error:
            if stopping():
                return {}
            log("kafka_away", retry_in_s=RETRY_S, error=str(error))
            time.sleep(RETRY_S)


def trade_ids(message: Message, venue: str) -> tuple[bool, list[tuple[str, int]]]:
    """Whether a record was asked for (by heal or backfill), and product and id of every trade of the venue in it."""
    headers = {name: text for name, text in message.headers() or () if isinstance(text, bytes)}
    value, asked_for = message.value(), headers.get("origin") in (b"heal", b"backfill")
    if headers.get("venue") != venue.encode() or not value or "least_trade_id" in headers:
        return asked_for, []
    protocol = PROTOCOLS[venue]
    if headers.get("channel") != protocol.page_channel.encode():
        return asked_for, list(protocol.look(value).trades)
    product_id = headers.get("product_id", b"").decode()
    if headers.get("http_status", b"200") != b"200" or not product_id:
        return asked_for, []
    return asked_for, [(product_id, trade_id) for trade_id in page_ids(value)]
