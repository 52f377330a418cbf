"""What a capture file holds: its messages, and whatever the file says about each. No Kafka here.

Formats, told apart by content: NDJSON of a venue's own messages; NDJSON of a recorder's envelopes, whose `raw`,
`raw_base64` or `data` is the message; lines of `marketflow export raw`, which say topic, key and headers of the record
too; a file that is one JSON body, so one message; a Parquet file of trades, one message a row. Text files may be
gzipped.
"""

from __future__ import annotations

import base64
import binascii
import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from marketflow.contracts.topics import TOPICS
from marketflow.errors import ConfigurationError
from marketflow.ingest import captures_parquet
from marketflow.ingest.captured import Captured, time_us
from marketflow.venues.validation import DECODE_ERRORS

SUFFIXES = (".ndjson", ".jsonl", ".json", ".parquet", ".ndjson.gz", ".jsonl.gz", ".json.gz")

# Envelope keys whose value becomes the header of the same meaning.
_ENVELOPE_HEADERS = {
    "venue": "venue",
    "channel": "channel",
    "connection_id": "connection_id",
    "product_id": "product_id",
    "vs_currency": "vs_currency",
    "interval": "interval",
    "request": "request",
    "http_status": "http_status",
    "poll_id": "poll_id",
    "poll_started_at_us": "poll_started_at",
    "page": "page",
    "received_at_us": "received_at",
}
# Receive times by the names that recorders give them, where received_at_us is missing.
_RECEIVE_TIMES = ("received_at", "timestamp", "ts", "recv_ts", "receive_timestamp")
# A venue's own messages may have a key `data` too (Binance's combined streams, CoinCap): these mark them as such.
_OWN_MESSAGE_KEYS = ("stream", "type", "events", "e")

# what marks a line of `marketflow export raw`
_EXPORTED = {"topic", "partition", "offset", "key", "headers"}
_TOPIC_NAMES = {topic.name for topic in TOPICS}

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def files_of(paths: list[Path]) -> list[Path]:
    """The files named, and of a folder those below it whose names end like a capture's and do not begin with `_`."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.is_file() and _is_capture(each.name))
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigurationError(f"{path}: no such file or folder")
    if not found:
        raise ConfigurationError(f"no capture in {', '.join(map(str, paths))}: looked for *{', *'.join(SUFFIXES)}")
    return found


def _is_capture(name: str) -> bool:
    """`_` in front marks what a tool keeps for itself beside the data, as `export` does."""
    return name.endswith(SUFFIXES) and not name.startswith("_")


def read(path: Path, venue: str | None = None, product_id: str | None = None) -> Iterator[Captured]:
    """The file's messages in its order. `venue` and `product_id` serve trades files that do not say theirs."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return captures_parquet.read(path, venue, product_id)
    return _text(path, gzipped=magic[:2] == b"\x1f\x8b")


def _open(path: Path, gzipped: bool) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if gzipped else path.open("rb")


def _text(path: Path, gzipped: bool) -> Iterator[Captured]:
    if _is_one_body(path, gzipped):
        with _open(path, gzipped) as file:
            body = file.read().strip()
        if body:
            yield unwrapped(body)
        return
    with _open(path, gzipped) as file:
        for line in file:
            message = line.rstrip(b"\r\n")
            if message:
                yield unwrapped(message)


def _is_one_body(path: Path, gzipped: bool) -> bool:
    """Whether the file is one JSON body: by its name, else because its first line alone is none."""
    name = path.name.removesuffix(".gz")
    if name.endswith((".ndjson", ".jsonl")):
        return False
    with _open(path, gzipped) as file:
        first = next((line for line in file if line.strip()), b"")
        return not (_is_json(first) and any(line.strip() for line in file))


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except DECODE_ERRORS:
        return False
    return True


def unwrapped(line: bytes) -> Captured:
    """A message as it is, or taken out of its recorder's envelope."""
    try:
        fields = _FIELDS.decode(line)
    except DECODE_ERRORS:
        return Captured(line, {})
    inner = fields.get("raw") or fields.get("raw_base64") or _data_of(fields)
    if inner is None:
        return Captured(line, {})
    if fields.keys() >= _EXPORTED and _plain(fields["topic"]) in _TOPIC_NAMES:
        return _exported(fields)
    headers = {header: _plain(fields[key]) for key, header in _ENVELOPE_HEADERS.items() if _plain(fields.get(key))}
    if not headers.get("received_at", "").isdecimal():
        headers.pop("received_at", None)
        times = (time_us(_plain(fields.get(key))) for key in _RECEIVE_TIMES)
        received = next((each for each in times if each is not None), None)
        if received is not None:
            headers["received_at"] = str(received)
    content = bytes(inner).strip()
    if not content.startswith(b'"'):
        return Captured(content, headers, reconstructed=True)
    try:
        text = msgspec.json.decode(content, type=str)
        base64_only = "raw_base64" in fields and "raw" not in fields
        return Captured(base64.b64decode(text, validate=True) if base64_only else text.encode(), headers)
    except (*DECODE_ERRORS, binascii.Error):
        return Captured(line, {})  # a broken envelope is replayed as it is, and silver refuses it by name


def _exported(fields: Mapping[str, msgspec.Raw]) -> Captured:
    """A line of `marketflow export raw`.

    Raises:
        ConfigurationError: it holds no payload, or was changed by hand.
    """
    where = ", ".join(f"{name} {_plain(fields[name])}" for name in ("topic", "partition", "offset"))
    try:
        headers = msgspec.json.decode(fields["headers"], type=dict[str, str | None] | None) or {}
        key = msgspec.json.decode(fields["key"], type=str | None)
        if "raw_base64" in fields:
            value = base64.b64decode(msgspec.json.decode(fields["raw_base64"], type=str), validate=True)
        else:
            value = msgspec.json.decode(fields["raw"], type=str).encode()
    except (*DECODE_ERRORS, binascii.Error) as error:
        raise ConfigurationError(
            f"the exported record of {where} cannot be replayed ({error}); leave its line out"
        ) from error
    said = {name: text for name, text in headers.items() if text is not None}
    return Captured(value, said, topic=_plain(fields["topic"]), key=key)


def _data_of(fields: Mapping[str, msgspec.Raw]) -> msgspec.Raw | None:
    """The message under `data`, unless the whole is a venue's own message that happens to have such a key."""
    data = fields.get("data")
    if data is None or any(key in fields for key in _OWN_MESSAGE_KEYS):
        return None
    is_list = bytes(data).lstrip()[:1] == b"["
    said = any(key in fields for key in ("venue", "received_at_us", "poll_id", "connection_id"))
    return data if said or not is_list else None


def _plain(raw: msgspec.Raw | None) -> str:
    """A text or a number as text; empty for anything else."""
    if raw is None:
        return ""
    try:
        value = msgspec.json.decode(raw)
    except DECODE_ERRORS:
        return ""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
