"""Numbers and times as the venues write them. Amounts are integers of the smallest unit, so nothing is rounded here."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

SIZE_DECIMALS = 8
SECOND_US = 1_000_000


def fixed(units: int, decimals: int) -> str:
    """With all decimals: 6351460 of 10^-2 is `63514.60`."""
    whole, fraction = divmod(units, 10**decimals)
    return f"{whole}.{fraction:0{decimals}d}"


def trimmed(units: int, decimals: int) -> str:
    """Without trailing zeros: 6351460 of 10^-2 is `63514.6`, 500 of 10^-2 is `5`."""
    return fixed(units, decimals).rstrip("0").rstrip(".")


@lru_cache(maxsize=4096)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_us(moment_us: int) -> str:
    """`2026-07-07T22:58:17.164892Z`."""
    second, microsecond = divmod(moment_us, SECOND_US)
    return f"{_second(second)}.{microsecond:06d}Z"


def rfc3339_ms(moment_us: int) -> str:
    """`2026-03-06T14:58:51.813Z`."""
    second, microsecond = divmod(moment_us, SECOND_US)
    return f"{_second(second)}.{microsecond // 1000:03d}Z"
