"""Why an item was rejected, and which messages are ignored by name. An enum, so that counts can be grouped for ever."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an item is in silver.rejected. The value is stored; never rename one."""

    MALFORMED = "malformed"  # not the format the venue promises: broken JSON, truncated, not UTF-8
    UNEXPECTED_SHAPE = "unexpected_shape"  # valid JSON of another shape: an error object instead of an array
    UNSUPPORTED_VENUE = "unsupported_venue"  # no parser for this venue yet
    BAD_HEADERS = "bad_headers"  # a header that the parser needs is missing or wrong
    OVERSIZE = "oversize"  # larger than the topic allows; the first 1 MiB is kept
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    UNKNOWN_PRODUCT = "unknown_product"
    UNKNOWN_SIDE = "unknown_side"
    NULL_PRICE = "null_price"
    NOT_POSITIVE = "not_positive"  # a size or price at or below zero
    OUT_OF_RANGE = "out_of_range"  # more than 18 fraction or 20 integer digits, or an id beyond 64 bits
    TIME_IN_FUTURE = "time_in_future"  # event time more than 60 s after receipt
    TIME_BEFORE_2009 = "time_before_2009"
    BAD_TIME = "bad_time"  # not a time at all
    CROSSED_QUOTE = "crossed_quote"  # best bid above best ask
    ID_WENT_BACK = "id_went_back"  # a feed's trade_id far below what it told before: the venue began to count anew
    INCOMPLETE_CANDLE = "incomplete_candle"  # its end is after its receipt: it may still change
    INCONSISTENT_CANDLE = "inconsistent_candle"  # high below low, open or close outside of them, or another length
    CURRENCY_SUSPECT = "currency_suspect"  # a page asked in usd whose stable coins agree on another price than a dollar
    CONFLICTING_DUPLICATE = "conflicting_duplicate"  # the id is there with other content


# A message that carries no data, by the name it is counted under in silver_accounting.ignored.
IGNORED_HEARTBEAT = "heartbeat"
IGNORED_SUBSCRIPTIONS = "subscriptions"
IGNORED_VENUE_ERROR = "venue_error"


def ignored_http(status: int) -> str:
    """Name of an ignored REST answer that is not a 200: `http_429`."""
    return f"http_{status}"


def ignored_unknown(message_type: str) -> str:
    """Name of an unknown but well-formed message type: `unknown:status`, cut to 40 characters."""
    return f"unknown:{message_type[:40]}"


MAX_FUTURE_S = 60
FIRST_YEAR = 2009
MAX_FRACTION_DIGITS = 18
MAX_INTEGER_DIGITS = 20
