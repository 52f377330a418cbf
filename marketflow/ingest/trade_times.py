"""How far markets that are polled by time had been read: from the end of the trades' topic, like a feed's last ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from marketflow.contracts.topics import TRADES, message_key
from marketflow.ingest.tail import DEPTHS, last_offsets, reader
from marketflow.settings import Settings

# venue and product
Market = tuple[str, str]


def last_trade_times(
    settings: Settings, markets: Collection[Market], stopping: Callable[[], bool] = lambda: False
) -> dict[Market, int]:
    """Milliseconds of the newest trade published of each market; a market of which none was found is not there.

    Waits while Kafka is away, until `stopping`; SetupError where the topic does not exist.
    """
    consumer, wanted = reader(settings), {message_key(*market): market for market in markets}
    try:
        found: dict[Market, int] = {}
        for depth in DEPTHS:
            whole = _read(consumer, TRADES.full_name(settings.topic_prefix), depth, wanted, found, stopping)
            if whole or len(found) == len(wanted) or stopping():
                break
        return found
    finally:
        consumer.close()


def _read(
    consumer: Consumer,
    topic: str,
    depth: int,
    wanted: dict[bytes, Market],
    found: dict[Market, int],
    stopping: Callable[[], bool],
) -> bool:
    """Take the times of the last records of each partition; whether that was the whole topic."""
    windows = last_offsets(consumer, topic, depth, stopping)
    left = {partition: end for partition, (start, end) in windows.items() if start < end}
    consumer.assign([TopicPartition(topic, partition, windows[partition][0]) for partition in left])
    while left and not stopping():
        for message in consumer.consume(5_000, timeout=0.2):
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            market = wanted.get(message.key() or b"")
            newest_ms = _newest_ms(message) if market is not None else None
            if market is not None and newest_ms is not None:
                found[market] = max(newest_ms, found.get(market, newest_ms))
            if message.offset() + 1 >= left.get(message.partition(), message.offset() + 1):
                left.pop(message.partition(), None)
    consumer.unassign()
    return all(start == 0 for start, _ in windows.values())


def _newest_ms(message: Message) -> int | None:
    """Of an answer; None where it holds no trade, or only a part of it is kept."""
    if any(name == "oversize" for name, _ in message.headers() or ()):
        return None
    times = [each["timestamp"] for each in json.loads(message.value() or b"[]")]
    return max((each for each in times if each is not None), default=None)
