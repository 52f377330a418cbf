"""What a capture file holds: its messages, and whatever the file says about each. No Kafka here.

Formats, told apart by content: NDJSON of a venue's own messages; NDJSON of a recorder's envelopes, whose `raw`,
`raw_base64` or `data` is the message; a file that is one JSON body, so one message; a Parquet file of trades, one
message a row. Text files may be gzipped.
"""

from __future__ import annotations

import base64
import binascii
import gzip
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from marketflow.errors import ConfigurationError
from marketflow.venues import coinbase_exchange

SUFFIXES = (".ndjson", ".jsonl", ".json", ".parquet", ".ndjson.gz", ".jsonl.gz", ".json.gz")
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

# Envelope keys whose value becomes the header of the same meaning.
_ENVELOPE_HEADERS = {
    "venue": "venue",
    "channel": "channel",
    "connection_id": "connection_id",
    "product_id": "product_id",
    "vs_currency": "vs_currency",
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

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Captured(msgspec.Struct):
    """One message of a file; `headers` is what the file itself says about it."""

    value: bytes
    headers: dict[str, str]
    reconstructed: bool = False


def files_of(paths: list[Path]) -> list[Path]:
    """The files named, and of a folder those below it whose names end like a capture's."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.is_file() and each.name.endswith(SUFFIXES))
        elif path.is_file():
            found.append(path)
        else:
            raise ConfigurationError(f"{path}: no such file or folder")
    if not found:
        raise ConfigurationError(f"no capture in {', '.join(map(str, paths))}: looked for *{', *'.join(SUFFIXES)}")
    return found


def read(path: Path, venue: str | None = None, product_id: str | None = None) -> Iterator[Captured]:
    """The file's messages in its order. `venue` and `product_id` serve trades files that do not say theirs."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"PAR1":
        return _parquet(path, venue, product_id)
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


def time_us(value: object) -> int | None:
    """Microseconds since the epoch of a time as files write them: ISO text (UTC where it names no zone) or a number.

    A number is seconds, milliseconds, microseconds or nanoseconds by its size: each unit reaches to the year 5138.
    """
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1_000_000)
    if isinstance(value, str):
        try:
            return time_us(datetime.fromisoformat(value))
        except ValueError:
            try:
                value = float(value) if "." in value else int(value)
            except ValueError:
                return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    for unit, per_us in ((10**11, 1_000_000), (10**14, 1_000)):
        if value < unit:
            return round(value * per_us)
    return round(value) if value < 10**17 else round(value) // 1_000


# Parquet files of trades: the first of these columns that is there.
_COLUMNS = {
    "trade_id": ("trade_id", "id", "t"),
    "price": ("price", "p"),
    "size": ("size", "qty", "quantity", "amount", "q"),
    "event": ("event_ts", "time", "exch_ts_ms", "T", "timestamp", "ts_ms"),
    "received": ("received_at", "received_at_us", "ts_ms", "recv_ts", "local_timestamp"),
    "product": ("product_id", "instrument_canon", "product"),
}
_VENUE_NAMES = {"coinbase": coinbase_exchange.VENUE}


def _parquet(path: Path, venue: str | None, product_id: str | None) -> Iterator[Captured]:
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ConfigurationError(f"{path} is no Parquet file: {error}") from error
    names = set(file.schema_arrow.names)
    for batch in file.iter_batches(batch_size=10_000):
        for row in batch.to_pylist():
            said = str(row.get("venue") or "").lower()
            row_venue = _VENUE_NAMES.get(said, said) or venue
            headers = {"channel": "trades"} if row_venue is None else {"channel": "trades", "venue": row_venue}
            received = time_us(_column(row, "received")) or time_us(_column(row, "event"))
            if received is not None:
                headers["received_at"] = str(received)
            if row_venue == coinbase_exchange.VENUE:
                value = _coinbase_match(path, names, row, product_id)
                headers["channel"] = "matches"
            else:
                value = msgspec.json.encode(row)
            yield Captured(value, headers, reconstructed=True)


def _column(row: Mapping[str, Any], meaning: str) -> object:
    return next((row[name] for name in _COLUMNS[meaning] if row.get(name) is not None), None)


def _coinbase_match(path: Path, names: set[str], row: Mapping[str, Any], product_id: str | None) -> bytes:
    """The row as a match message. `side` and `side_raw` are the maker's, as the venue has it; taker_side is flipped."""
    product = _column(row, "product") or product_id
    if product is None:
        raise ConfigurationError(f"{path}: no column {' or '.join(_COLUMNS['product'])}: name it with --product")
    side_column = next((name for name in ("side_raw", "side", "taker_side") if name in names), None)
    event = time_us(_column(row, "event"))
    if (
        side_column is None
        or event is None
        or any(_column(row, each) is None for each in ("trade_id", "price", "size"))
    ):
        raise ConfigurationError(
            f"{path}: a trades Parquet needs trade_id, price, size, side and time; has {sorted(names)}"
        )
    side = str(row[side_column]).lower()
    if side_column == "taker_side":
        side = {"buy": "sell", "sell": "buy"}.get(side, side)
    seconds, micros = divmod(event, 1_000_000)
    time_text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    message = {
        "type": "match",
        "trade_id": int(str(_column(row, "trade_id"))),
        "side": side,
        "size": format_number(_column(row, "size")),
        "price": format_number(_column(row, "price")),
        "product_id": str(product),
        "time": f"{time_text}.{micros:06d}Z",
    }
    if row.get("sequence") is not None:
        message["sequence"] = int(row["sequence"])
    return msgspec.json.encode(message)


def format_number(value: object) -> str:
    """A number as the venues write it: no exponent."""
    return format(Decimal(str(value)), "f")
