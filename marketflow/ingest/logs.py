"""One JSON line an event on stdout: what a person reads in `marketflow logs` and a program can filter."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import msgspec


def log(event: str, **fields: object) -> None:
    """Write one event with its fields. Never give it a key, a password or a whole payload."""
    line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
    sys.stdout.write(msgspec.json.encode(line, enc_hook=str).decode() + "\n")
    sys.stdout.flush()
