"""Captures into dataset replay: the ordinary topics, headers and parsers, with origin `replay`.

A header comes from the first of these that knows it: the capture's own envelope, the message's content, the option,
and for the venue of a body that says nothing the name of its file or folder. received_at is the capture's receive time;
where it has none it is the message's own event time, so that no trade looks late; for a message without one it is the
time of the message before it, and for the first the file's modification time. A page of candles without a receive time
proves no more than that its newest candle had begun, so that one is refused as incomplete.

A line of `marketflow export raw` says all that the record said: its topic, key and headers are taken as they are, but
for the origin.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from marketflow.contracts.products import PRODUCTS, VS_CURRENCIES
from marketflow.contracts.silver import CANDLE_INTERVALS_S
from marketflow.contracts.topics import ORIGINS, PRICES, SCHEMA_VERSION, TOPICS, Topic, message_key
from marketflow.errors import ConfigurationError
from marketflow.ingest.captured import Captured
from marketflow.ingest.captures import files_of, read
from marketflow.ingest.publisher import KafkaPublisher
from marketflow.ingest.sniff import KNOWN_CHANNELS, KNOWN_VENUES, NOBODY, Identity, identify, topic_for, venue_in_path
from marketflow.settings import Settings
from marketflow.venues import coinbase_exchange, coingecko, cryptocompare
from marketflow.venues.validation import FIRST_EVENT_US, MAX_FUTURE_US

# Messages looked at to learn whose file it is, before anything is published.
LOOKED_AT = 1_000
PROGRESS_EVERY = 10_000
FLUSH_S = 120.0

Progress = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class FileReplay:
    """What became of one file."""

    path: Path
    venue: str
    messages: int
    bytes: int
    reconstructed: int
    by_topic: dict[str, int]


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """What was published and acknowledged. `by_topic` has the full name of every topic, also those that got nothing."""

    files: tuple[FileReplay, ...]
    by_topic: dict[str, int]

    @property
    def messages(self) -> int:
        """All messages."""
        return sum(self.by_topic.values())


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller says for files that do not."""

    venue: str | None = None
    channel: str | None = None
    product: str | None = None
    vs_currency: str | None = None
    interval: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message ready to be published."""

    topic: Topic
    key: bytes
    value: bytes
    headers: dict[str, str]


def replay_files(
    settings: Settings,
    files: Sequence[Path | str],
    *,
    venue: str | None = None,
    channel: str | None = None,
    product: str | None = None,
    vs_currency: str | None = None,
    interval: str | None = None,
    progress: Progress | None = None,
) -> ReplaySummary:
    """Publish the files' messages, in order, to the replay dataset's topics.

    Every file is looked at before the first message is sent, so that an option that is missing is said at once.
    A folder stands for the captures below it. `progress` is called with a file and how many of its messages are out.
    """
    if settings.dataset != "replay":
        raise ConfigurationError(
            f"MARKETFLOW_DATASET: replay writes to dataset replay only, not to {settings.dataset!r}"
        )
    options = Options(venue, channel, product, vs_currency and vs_currency.lower(), interval)
    _check(options)
    paths = files_of([Path(file) for file in files])
    venues = {path: _venue_of(path, options) for path in paths}
    for path in paths:
        list(islice(prepared(path, venues[path], options), LOOKED_AT))
    publisher = KafkaPublisher(settings)
    replayed = tuple(_replay(publisher, settings, path, venues[path], options, progress) for path in paths)
    publisher.flush(FLUSH_S)
    by_topic = Counter({topic.full_name(settings.topic_prefix): 0 for topic in TOPICS})
    for file in replayed:
        by_topic.update(file.by_topic)
    return ReplaySummary(replayed, dict(by_topic))


def _check(options: Options) -> None:
    if options.venue is not None and options.venue not in KNOWN_VENUES:
        raise ConfigurationError(f"--venue: {options.venue!r} is unknown; known: {', '.join(sorted(KNOWN_VENUES))}")
    if options.channel is not None and options.channel not in KNOWN_CHANNELS:
        raise ConfigurationError(
            f"--channel: {options.channel!r} is unknown; known: {', '.join(sorted(KNOWN_CHANNELS))}"
        )
    if options.product is not None and options.product not in PRODUCTS:
        raise ConfigurationError(f"--product: {options.product!r} is unknown; known: {', '.join(sorted(PRODUCTS))}")
    if options.vs_currency is not None and options.vs_currency not in VS_CURRENCIES:
        raise ConfigurationError(f"--vs-currency: {options.vs_currency!r} is none that prices are quoted in")
    if options.interval is not None and options.interval not in CANDLE_INTERVALS_S:
        raise ConfigurationError(f"--interval: {options.interval!r} is none of {', '.join(CANDLE_INTERVALS_S)}")


def _venue_of(path: Path, options: Options) -> str:
    """The venue of messages in this file that do not say their own."""
    first = None
    found = None
    for captured in islice(read(path, options.venue, options.product), LOOKED_AT):
        if captured.topic is not None:  # it says all by itself, and what it does not say was not said
            return captured.headers.get("venue", "")
        first = first or captured
        found = found or captured.headers.get("venue") or identify(captured.value).venue
    if first is None:
        raise ConfigurationError(f"{path}: holds no message")
    found = found or options.venue or venue_in_path(path)
    if found is None:
        begin = first.value[:60].decode("utf-8", "backslashreplace")
        raise ConfigurationError(
            f"{path}: cannot tell whose messages these are (the first begins {begin!r}): name the venue with --venue"
        )
    return found


def _replay(
    publisher: KafkaPublisher,
    settings: Settings,
    path: Path,
    venue: str,
    options: Options,
    progress: Progress | None,
) -> FileReplay:
    by_topic: Counter[str] = Counter()
    size = reconstructed = 0
    for message in prepared(path, venue, options):
        headers = [(name, text.encode()) for name, text in message.headers.items()]
        publisher.publish(message.topic, message.key, message.value, headers)
        by_topic[message.topic.full_name(settings.topic_prefix)] += 1
        size += len(message.value)
        reconstructed += "reconstructed" in message.headers
        if progress is not None and by_topic.total() % PROGRESS_EVERY == 0:
            progress(path, by_topic.total())
    if progress is not None and by_topic.total() % PROGRESS_EVERY:
        progress(path, by_topic.total())
    return FileReplay(path, venue, by_topic.total(), size, reconstructed, dict(by_topic))


def prepared(path: Path, venue: str, options: Options) -> Iterator[Prepared]:
    """The file's messages with topic, key and headers; pure but for reading the file."""
    latest_us = time.time_ns() // 1_000 + MAX_FUTURE_US
    before_us = path.stat().st_mtime_ns // 1_000
    for captured in read(path, options.venue, options.product):
        if captured.topic is not None:
            yield _as_it_was(captured)
            continue
        identity = identify(captured.value)
        if identity.event_us is not None and not FIRST_EVENT_US <= identity.event_us <= latest_us:
            identity = msgspec.structs.replace(identity, event_us=None)  # a time that silver will refuse
        message = _prepared(path, captured, identity, venue, options, before_us)
        before_us = int(message.headers["received_at"])
        yield message


def _as_it_was(captured: Captured) -> Prepared:
    """A record of `marketflow export raw`; silver must refuse a header that it refused before, so none is mended."""
    (topic,) = [one for one in TOPICS if one.name == captured.topic]
    headers = dict(captured.headers)
    if headers.get("origin") in ORIGINS:
        headers["origin"] = "replay"
    key = message_key(headers.get("venue", ""), None) if captured.key is None else captured.key.encode()
    return Prepared(topic, key, captured.value, headers)


def _prepared(
    path: Path, captured: Captured, identity: Identity, file_venue: str, options: Options, before_us: int
) -> Prepared:
    said, value = captured.headers, captured.value
    headers = {
        "schema_version": SCHEMA_VERSION,
        "origin": "replay",
        "connection_id": f"replay:{path.name}",
        **said,
        "venue": said.get("venue") or identity.venue or file_venue,
    }
    headers["received_at"] = said.get("received_at") or str(identity.event_us or before_us)
    if captured.reconstructed:
        headers["reconstructed"] = "1"
    product_id = None
    if identity.is_candles:
        product_id = _candles(path, headers, identity, options)
    elif headers["venue"] == coinbase_exchange.VENUE:
        product_id = _coinbase(path, value, headers, identity, options)
    elif headers["venue"] == coingecko.VENUE:
        _coingecko(path, value, headers, identity, options)
    else:
        headers["channel"] = said.get("channel") or identity.channel or options.channel or "unknown"
    topic = topic_for(headers["venue"], headers["channel"], value)
    if topic is PRICES:  # a page that names no poll is one of its own, the same each time
        headers.setdefault("poll_id", f"replay-{hashlib.sha256(value).hexdigest()[:16]}")
        headers.setdefault("poll_started_at", headers["received_at"])
        headers.setdefault("page", "1")
    return Prepared(topic, message_key(headers["venue"], product_id), value, headers)


def _coinbase(path: Path, value: bytes, headers: dict[str, str], identity: Identity, options: Options) -> str | None:
    """Complete the headers of a feed message or a page of trades; the product of its key."""
    glimpse = coinbase_exchange.glimpse(value)
    content_channel = identity.channel or (None if glimpse.type is None else glimpse.channel)
    channel = headers.get("channel") or content_channel or options.channel or glimpse.channel
    headers["channel"] = channel
    if channel == coinbase_exchange.CANDLES_CHANNEL:  # and no candle in it
        return headers.get("product_id")
    if channel != "trades":
        headers.pop("product_id", None)
        return glimpse.canonical_product
    product_id = headers.get("product_id") or options.product
    if product_id is None:
        raise ConfigurationError(f"{path}: a page of trades does not say its product: name it with --product")
    headers["product_id"] = product_id
    return product_id


def _candles(path: Path, headers: dict[str, str], identity: Identity, options: Options) -> str:
    """Complete the headers of a page of candles; the product of its key."""
    headers["channel"] = headers.get("channel") or identity.channel or "unknown"
    for name, option, given in (
        ("product_id", "--product", options.product),
        ("interval", "--interval", options.interval),
    ):
        found = headers.get(name) or given
        if found is not None:
            headers[name] = found
        elif name == "product_id" or headers["channel"] != cryptocompare.CANDLES_CHANNEL:  # whose name says minutes
            raise ConfigurationError(f"{path}: a page of candles does not say its {name}: name it with {option}")
    return headers["product_id"]


def _coingecko(path: Path, value: bytes, headers: dict[str, str], identity: Identity, options: Options) -> None:
    """Complete the headers of a page: its channel and its quote currency."""
    headers["channel"] = headers.get("channel") or coingecko.CHANNEL
    if "vs_currency" not in headers and "vs_currency=" not in headers.get("request", ""):
        if options.vs_currency is not None:
            headers["vs_currency"] = options.vs_currency
        elif identity is not NOBODY and identity.channel == coingecko.CHANNEL:
            raise ConfigurationError(f"{path}: a page of prices does not say its currency: name it with --vs-currency")
