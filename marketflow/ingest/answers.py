"""What an answer to a poll means: whether it brings prices, why not, and how long it asks to be left alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import aiohttp

from marketflow import venues
from marketflow.contracts.reasons import IGNORED_VENUE_ERROR
from marketflow.contracts.records import AssetPrice, Ignored, Outcome, RejectedItem, Unparseable

# CoinGecko's own 429s name two minutes; this serves where an answer does not say.
DEFAULT_RETRY_AFTER_S = 60.0
# Binance bans for two minutes at least, longer for who goes on.
DEFAULT_BAN_S = 120.0
LONGEST_RETRY_AFTER_S = 3_600.0
LONGEST_BAN_S = 3 * 86_400.0
# of an answer that brings nothing, in the log
SHOWN_BYTES = 200

_MEANS = {
    400: "the source does not understand the request",
    401: "the source does not take the key, or wants one",
    402: "the plan is spent or not paid",
    403: "refused: by a firewall, or the key's plan does not have this call",
    404: "the source does not have this call",
    408: "the source gave up waiting for the request",
    418: "this address is banned for having asked too often",
    422: "the source does not understand the request",
    429: "too many calls",
    451: "the source does not serve this country",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`label` counts it (`200`, `429`, `200_empty_page`); `means` is None where the answer brings a price."""

    label: str
    means: str | None = None


def verdict(headers: Mapping[str, str], value: bytes) -> Verdict:
    """What an answer means. One with status 200 is read as silver will read it."""
    status = headers["http_status"]
    return _read(venues.parse(headers, value)) if status == "200" else Verdict(status, _meaning(int(status)))


def _meaning(status: int) -> str:
    if status in _MEANS:
        return _MEANS[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the source is in trouble"
    return "the source has moved" if 300 <= status < 400 else "no answer that a poll expects"


def _read(outcome: Outcome) -> Verdict:
    if isinstance(outcome, Ignored):
        error = outcome.name == IGNORED_VENUE_ERROR
        return Verdict(f"200_{outcome.name}", "an error with status 200" if error else "nothing in it, with status 200")
    if isinstance(outcome, Unparseable):
        return Verdict(f"200_{outcome.reason}", f"not what was asked for, with status 200: {outcome.detail}")
    if any(isinstance(item, AssetPrice) for item in outcome.items):
        return Verdict("200")
    refused = [item for item in outcome.items if isinstance(item, RejectedItem)]
    reason, count = Counter(item.reason for item in refused).most_common(1)[0]
    detail = next(item.detail for item in refused if item.reason == reason)
    return Verdict(f"200_{reason}", f"{count} of {len(outcome.items)} items are refused, and none is a price: {detail}")


def failure(error: BaseException) -> Verdict:
    """What it means that no whole answer came: none of it is published, since it cannot be told what is missing."""
    why = f"{type(error).__name__}: {error}"
    if isinstance(error, TimeoutError):
        return Verdict("slow", f"no whole answer within the limit: {why}")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Verdict("half", f"the answer ended before its end: {why}")
    return Verdict("none", f"no answer: {why}")


def retry_after_s(status: int, header: str | None, now: datetime) -> float | None:
    """How long an answer asks to be left alone: seconds or a date in Retry-After; None where it does not."""
    if status not in (418, 429, 503):
        return None
    default, longest = (
        (DEFAULT_BAN_S, LONGEST_BAN_S) if status == 418 else (DEFAULT_RETRY_AFTER_S, LONGEST_RETRY_AFTER_S)
    )
    if header is None:
        return None if status == 503 else default
    if header.strip().isdecimal():
        seconds = float(header.strip())
    else:
        try:
            seconds = (parsedate_to_datetime(header) - now).total_seconds()
        except (ValueError, TypeError):
            seconds = default
    return min(max(seconds, 0.0), longest)


def shown(value: bytes, secrets: Mapping[str, str]) -> str:
    """The beginning of an answer for the log, without any key that it may repeat."""
    text = value.decode("utf-8", "replace")
    for secret in secrets.values():
        for word in (secret, secret.rpartition(" ")[2]):
            text = text.replace(word, "***") if word else text
    return ascii(text[:SHOWN_BYTES])[1:-1]
