"""A record of bronze as a line of JSON, from which `marketflow replay` makes the same Kafka record again.

`raw` is the payload's text: decoded, it is the payload's bytes. A payload that is not UTF-8 is in `raw_base64` instead,
so that no byte is lost and nobody takes it for text. `headers` are all of the record's headers as bronze keeps them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

# of a row of bronze; every other column is a header, and in `headers`
COLUMNS = ("topic", "partition", "offset", "key", "value", "kafka_timestamp", "ingested_at", "headers")


def line(row: Mapping[str, Any], prefix: str) -> bytes:
    """The row's line without its end. `prefix` is the dataset's, which the topic's name loses."""
    said = {
        "topic": row["topic"].removeprefix(prefix),
        "partition": row["partition"],
        "offset": row["offset"],
        "key": row["key"],
        "kafka_timestamp_us": _us(row["kafka_timestamp"]),
        "ingested_at_us": _us(row["ingested_at"]),
        "headers": None if row["headers"] is None else msgspec.Raw(row["headers"].encode()),
        **_payload(row["value"]),
    }
    return msgspec.json.encode(said)


def _payload(value: bytes | None) -> dict[str, str | None]:
    if value is None:  # a record without a payload; no producer of ours makes one
        return {"raw": None}
    try:
        return {"raw": value.decode()}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(value).decode()}


def _us(moment: datetime) -> int:
    seconds = moment.replace(microsecond=0).timestamp()
    return int(seconds) * 1_000_000 + moment.microsecond
