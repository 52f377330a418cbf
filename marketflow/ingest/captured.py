"""One message of a capture, and times as captures write them."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec


class Captured(msgspec.Struct):
    """One message of a file; `headers` is what the file itself says about it.

    `topic` is set in a line of `marketflow export raw`: then topic, key and headers are those of the record itself.
    """

    value: bytes
    headers: dict[str, str]
    reconstructed: bool = False
    topic: str | None = None
    key: str | None = None


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
