"""Bronze's `headers` for Python: read, and held against the columns of silver that are filled from them.

Many messages at once: where nothing is unusual that is a few passes in C; message by message only where something is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from marketflow.contracts.topics import ORIGINS
from marketflow.lake.silver_sources import Source
from marketflow.lake.stream_headers import TIME_DIGITS, TIME_END_US

TIMES = ("received_at", "poll_started_at")
_PLAIN = msgspec.json.Decoder(dict[str, str])
_WITH_NULLS = msgspec.json.Decoder(dict[str, str | None])
_ORIGINS = frozenset(ORIGINS)


def read(texts: Sequence[str | None]) -> tuple[list[dict[str, str]], dict[int, str]]:
    """Each message's text headers by name (the last of a repeated one), and by position why some cannot be read.

    A header whose value is null is one that is not there.
    """
    try:
        return list(map(_PLAIN.decode, cast("Sequence[str]", texts))), {}
    except (msgspec.DecodeError, TypeError):
        pass  # some are absent, hold a null, or cannot be read: which, the loop tells
    found: list[dict[str, str]] = []
    unread = {}
    for position, text in enumerate(texts):
        stored: dict[str, str | None] = {}
        try:
            stored = _WITH_NULLS.decode(text) if text is not None else {}
        except msgspec.DecodeError as error:
            unread[position] = f"bronze's headers cannot be read: {error}"
        found.append({name: header for name, header in stored.items() if header is not None})
    return found, unread


def unfit(source: Source, messages: Sequence[dict[str, str]]) -> dict[int, str]:
    """By position, what is wrong with a header that a column of the source's table is filled from."""
    found: dict[int, str] = {}
    for name in source.headers.values():
        texts = [headers.get(name) for headers in messages]
        if not _all_fit(name, texts):
            for position, text in enumerate(texts):
                wrong = _wrong(name, text)
                if wrong is not None:
                    found.setdefault(position, wrong)
    return found


def time_us(text: str | None) -> int | None:
    """A header's time in µs, None where it is none; the same that bronze's own column has."""
    if text is None or len(text) > TIME_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    time = int(text)
    return time if time < TIME_END_US else None


def _all_fit(name: str, texts: Sequence[str | None]) -> bool:
    """True only where nothing is wrong with any of them."""
    if None in texts:
        return False
    present = cast("Sequence[str]", texts)
    if name in TIMES:
        digits = "".join(present)
        # with a digit less every number is a time before the year 5139
        return (
            all(present) and max(map(len, present), default=0) < TIME_DIGITS and digits.isascii() and digits.isdigit()
        )
    return name != "origin" or _ORIGINS.issuperset(present)


def _wrong(name: str, header: str | None) -> str | None:
    """Why a header cannot fill its column, or None where it can."""
    if header is None:
        return f"header {name} is missing"
    if name in TIMES and time_us(header) is None:
        return f"header {name} is {ascii(header)[:80]}, not microseconds since the epoch"
    if name == "origin" and header not in _ORIGINS:
        return f"header origin is {ascii(header)[:80]}, none of {', '.join(ORIGINS)}"
    return None
