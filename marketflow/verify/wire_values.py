"""Values of a JSON body as the judge reads them: strict, slow, and with the standard library alone.

What may become a row and what may not is DESIGN's "Numbers": at most 20 integer and 18 fraction digits, prices and
sizes above zero, times from 2009 to 60 s after receipt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
FIRST_US = (datetime(2009, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND
FUTURE_US = 60_000_000
LARGEST = Decimal(10) ** 20
INT64 = 2**63 - 1
INT32 = 2**31 - 1
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,9})?")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)")
_WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)

Body = dict[str, Any]


class NoRow(Exception):  # noqa: N818 - an answer, not an error
    """The item cannot become a row; the message says why."""


class Written(str):
    """A JSON number as its own text, so that neither digits nor the difference to a string are lost."""


def object_of(value: Any) -> Body:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise NoRow("not an object")
    return value


def list_of(body: Body, name: str) -> list[Any]:
    """A member that must be an array."""
    value = body.get(name)
    if not isinstance(value, list):
        raise NoRow(f"{name} is no array")
    return value


def optional(body: Body, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, or None where the member is absent or null."""
    return None if body.get(name) is None else make()


def figure(body: Body, name: str) -> Decimal | None:
    """A total that may be zero and not negative."""
    found: Decimal | None = optional(body, name, lambda: number(body, name))
    if found is not None and found < 0:
        raise NoRow(f"{name} is negative")
    return found


def text(body: Body, name: str) -> str:
    """A text that is not empty."""
    value = body.get(name)
    if not isinstance(value, str) or isinstance(value, Written) or not value or "\x00" in value:
        raise NoRow(f"{name} is no text")
    return value


def integer(body: Body, name: str, largest: int) -> int:
    """A whole number from 0 to the largest."""
    value = body.get(name)
    if not isinstance(value, Written) or not _NUMBER.fullmatch(value) or len(value) > 40:
        raise NoRow(f"{name} is no integer")
    found = Decimal(value)
    if found != int(found) or not 0 <= found <= largest:
        raise NoRow(f"{name} is no integer in range")
    return int(found)


def number(body: Body, name: str) -> Decimal:
    """A number that the table can hold, exact."""
    value = body.get(name)
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise NoRow(f"{name} is no number")
    return held(name, Decimal(value))


def held(name: str, found: Decimal) -> Decimal:
    """The number, if the table can hold it."""
    if not found:
        return Decimal(0)
    _, digits, exponent = found.as_tuple()
    fraction = -int(exponent) - (len(digits) - len("".join(map(str, digits)).rstrip("0")))
    if found.adjusted() >= 20 or fraction > 18:
        raise NoRow(f"{name} out of range")
    return found


def rounded(body: Body, name: str) -> Decimal | None:
    """A double's ratio to 18 places, half-even."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, Written) or not _NUMBER.fullmatch(value) or len(value) > 60:
        raise NoRow(f"{name} is no number")
    found = Decimal(value)
    if found and found.adjusted() >= 20:
        raise NoRow(f"{name} out of range")
    return held(name, found.quantize(Decimal("1e-18"), context=_WIDE))


def positive(body: Body, name: str) -> Decimal:
    """A number above zero."""
    found = number(body, name)
    if found <= 0:
        raise NoRow(f"{name} is not positive")
    return found


def money(body: Body, price_name: str, size_name: str) -> dict[str, Decimal]:
    """Price and size of a trade, whose product must be one that the table can hold once it is rounded."""
    price, size = positive(body, price_name), positive(body, size_name)
    if _WIDE.quantize(_WIDE.multiply(price, size), Decimal("1e-18")) >= LARGEST:
        raise NoRow("notional out of range")
    return {"price": price, "size": size}


def time(body: Body, name: str, received_at: int | None) -> int:
    """µs of a text with its zone; digits beyond the microsecond are rounded."""
    match = _TIME.fullmatch(text(body, name))
    if match is None:
        raise NoRow(f"{name} is no time")
    day, clock, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError as error:
        raise NoRow(f"{name} is no time: {error}") from None
    return in_time(name, (whole - EPOCH) // MICROSECOND + round(Decimal(f"0.{fraction or 0}") * 1_000_000), received_at)


def ticks(body: Body, name: str, received_at: int | None, *, per_second: int | None = None) -> int:
    """µs of a whole number of ticks; without `per_second` of ms or µs, whichever lies before the year 5138."""
    value = body.get(name)
    if not isinstance(value, Written) or not re.fullmatch("[0-9]{1,18}", value):
        raise NoRow(f"{name} is no time")
    if per_second is None:
        per_second = 1_000 if int(value) < 10**14 else 1_000_000
    return in_time(name, int(value) * (1_000_000 // per_second), received_at)


def in_time(name: str, found: int, received_at: int | None) -> int:
    """The µs, if they are neither before 2009 nor more than a minute after receipt."""
    if found < FIRST_US or found > (received_at or 0) + FUTURE_US:
        raise NoRow(f"{name} is too early or in the future")
    return found
