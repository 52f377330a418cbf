"""What this venue published last, read from the end of its topic: the broker, not a file beside us, is the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from marketflow.contracts.topics import TRADES
from marketflow.errors import SetupError
from marketflow.ingest.gaps import holes_between
from marketflow.ingest.logs import log
from marketflow.settings import Settings
from marketflow.venues import coinbase_exchange

# Records looked at per partition, deeper only while a product has not been found.
DEPTHS = (5_000, 50_000, 500_000)
# Trades of a product that begin a window are not judged: one that overtook them may lie just before it.
UNJUDGED_TRADES = 100
RETRY_S = 2.0


@dataclass(slots=True)
class Tail:
    """`last_ids`: highest trade_id per product. `holes`: ranges missing inside the window that was read."""

    last_ids: dict[str, int] = field(default_factory=dict)
    holes: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


class _Page(msgspec.Struct):
    trade_id: int | None = None


_PAGE = msgspec.json.Decoder(list[_Page])


def read_tail(settings: Settings, products: Iterable[str], stopping: Callable[[], bool] = lambda: False) -> Tail:
    """Read back from the end of the trades' topic until each product was seen, or the depth is spent.

    Waits while Kafka is away, until `stopping`; SetupError where the topic does not exist.
    """
    wanted = set(products)
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "group.id": "marketflow-tail",  # never committed
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
    try:
        tail = Tail()
        for depth in DEPTHS:
            tail, whole = _read(consumer, TRADES.full_name(settings.topic_prefix), depth, stopping)
            if whole or wanted <= tail.last_ids.keys() or stopping():
                break
        return tail
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, depth: int, stopping: Callable[[], bool]) -> tuple[Tail, bool]:
    """The tail of that depth, and whether it was the whole topic."""
    windows = _windows(consumer, topic, depth, stopping)
    ids: dict[tuple[str, bool], list[int]] = {}
    left = {partition: end for partition, (start, end) in windows.items() if start < end}
    consumer.assign([TopicPartition(topic, partition, windows[partition][0]) for partition in left])
    # Until the end as it was when we looked: on a topic that others write to, an end may never be met.
    while left and not stopping():
        for message in consumer.consume(5_000, timeout=0.2):
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            partition, next_offset = message.partition(), message.offset() + 1
            product, found = trade_ids(message)
            if product is not None:
                ids.setdefault((product, windows[partition][0] == 0), []).extend(found)
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
    return tail, all(start == 0 for start, _ in windows.values())


def _windows(consumer: Consumer, topic: str, depth: int, stopping: Callable[[], bool]) -> dict[int, tuple[int, int]]:
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


def trade_ids(message: Message) -> tuple[str | None, list[int]]:
    """Product and trade ids of one record of our venue, from the feed or from a REST page; (None, []) otherwise."""
    headers = {name: text for name, text in message.headers() or () if isinstance(text, bytes)}
    value = message.value()
    if headers.get("venue") != coinbase_exchange.VENUE.encode() or not value:
        return None, []
    if headers.get("channel") == b"trades":
        if headers.get("http_status", b"200") != b"200" or "product_id" not in headers:
            return None, []
        try:
            page = _PAGE.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None, []  # silver quarantines it; it holds no trade that anyone could read
        ids = [trade.trade_id for trade in page if trade.trade_id is not None]
        return (headers["product_id"].decode(), ids) if ids else (None, [])
    glimpse = coinbase_exchange.glimpse(value)
    if not glimpse.is_trade or glimpse.trade_id is None:
        return None, []
    return glimpse.canonical_product, [glimpse.trade_id]
