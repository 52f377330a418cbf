"""The limits of `contracts/reasons.py`, the same for every venue.

Two ways lead to the same answer. The careful one, `Fields`, reads a JSON object field by field and names the first
thing that is wrong. A venue whose messages come by the hundred thousand may decode a whole message into a typed struct
first (`PLAIN_NUMBER`, `event_time_us` and `notional` are made for that) and fall back to the careful way whenever
anything looks unusual; a test holds the two together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Annotated

import msgspec

from marketflow.contracts.reasons import FIRST_YEAR, MAX_FRACTION_DIGITS, MAX_FUTURE_S, MAX_INTEGER_DIGITS, Reason
from marketflow.contracts.records import Item, RejectedItem, Unparseable

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_EVENT_US = int(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
MAX_FUTURE_US = MAX_FUTURE_S * 1_000_000
# 1973 in microseconds, the year 5138 in milliseconds
_LEAST_MICROSECONDS = 10**14
LIMIT = Decimal(10) ** MAX_INTEGER_DIGITS
QUANTUM = Decimal(1).scaleb(-MAX_FRACTION_DIGITS)

# A product of two numbers within the limits has at most 76 digits, so nothing is rounded before the one rounding to
# 18 places. An own context, because the thread's default keeps 28 digits.
MONEY = Context(prec=80, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation])

# A number without sign or exponent that fits by its length alone. ASCII digits only: Decimal() would take "1_000".
PLAIN_NUMBER = re.compile(rf"[0-9]{{1,{MAX_INTEGER_DIGITS}}}(?:\.[0-9]{{1,{MAX_FRACTION_DIGITS}}})?").fullmatch
_ANY_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,9})?").fullmatch

AwareTime = Annotated[datetime, msgspec.Meta(tz=True)]
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_INTEGER = msgspec.json.Decoder(int)
_TIME = msgspec.json.Decoder(AwareTime)

# What decoding raises on bytes that are not the JSON a venue promises; RecursionError is deep nesting.
DECODE_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class RejectionError(Exception):
    """One item cannot be a row. Raised and caught inside a parser only: it becomes a RejectedItem or Unparseable."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def shown(value: object) -> str:
    """A value for a sentence: printable, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def received_us(headers: Mapping[str, str]) -> int:
    """The received_at header in µs; it is what times in the future are measured against."""
    text = headers.get("received_at")
    if text is None:
        raise RejectionError(Reason.BAD_HEADERS, "header received_at is missing")
    if len(text) > 18 or not (text.isascii() and text.isdigit()):
        raise RejectionError(
            Reason.BAD_HEADERS, f"header received_at is {shown(text)}, not microseconds since the epoch"
        )
    return int(text)


def not_text(value: bytes) -> Unparseable | None:
    """Why the payload is not text at all, or None. Decoders skip over bytes they do not need, so this looks at all."""
    if not value:
        return Unparseable(Reason.MALFORMED, "the message is empty")
    if value.isascii():
        return None
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return Unparseable(Reason.MALFORMED, f"not UTF-8: {error.reason} at byte {error.start}")
    return None


def fields_of(value: bytes | msgspec.Raw) -> Fields:
    """The JSON object's fields, not yet decoded; a RejectionError where it is malformed or another shape."""
    try:
        return Fields(_OBJECT.decode(value))
    except msgspec.ValidationError as error:
        # An array is refused before its end is looked at: whether it is JSON at all decides the reason.
        raise RejectionError(*_shape_or_malformed(value, str(error))) from None
    except DECODE_ERRORS as error:
        raise RejectionError(Reason.MALFORMED, shown_error(error)) from None


def elements_of(value: bytes) -> list[msgspec.Raw]:
    """The JSON array's elements, not yet decoded; a RejectionError where it is malformed or another shape."""
    try:
        return _ARRAY.decode(value)
    except msgspec.ValidationError as error:
        raise RejectionError(*_shape_or_malformed(value, str(error))) from None
    except DECODE_ERRORS as error:
        raise RejectionError(Reason.MALFORMED, shown_error(error)) from None


def _shape_or_malformed(value: bytes | msgspec.Raw, detail: str) -> tuple[Reason, str]:
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
    except DECODE_ERRORS as error:
        return Reason.MALFORMED, shown_error(error)
    return Reason.UNEXPECTED_SHAPE, detail


def shown_error(error: BaseException) -> str:
    """A decoder's sentence, printable and short."""
    return ascii(str(error))[1:-1][:200]


def in_range(name: str, number: Decimal) -> Decimal:
    """The number, exact, when Decimal(38,18) can hold it; trailing zeros do not count as digits."""
    if not number:
        return Decimal(0)
    if number.adjusted() >= MAX_INTEGER_DIGITS:
        raise RejectionError(
            Reason.OUT_OF_RANGE, f"{name} {shown(str(number))} has more than {MAX_INTEGER_DIGITS} integer digits"
        )
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # only NaN and infinities have another, and no number text makes those
    if exponent > 0:  # 1E+5, which not every decimal reader takes
        return Decimal((sign, digits + (0,) * exponent, 0))
    excess = -exponent - MAX_FRACTION_DIGITS
    if excess <= 0:
        return number
    if excess >= len(digits) or any(digits[-excess:]):
        raise RejectionError(
            Reason.OUT_OF_RANGE, f"{name} {shown(str(number))} has more than {MAX_FRACTION_DIGITS} fraction digits"
        )
    return Decimal((sign, digits[:-excess], exponent + excess))


def notional(price: Decimal, size: Decimal) -> Decimal:
    """Price times size, rounded half-even to 18 places once; a RejectionError where the result leaves the range."""
    product = MONEY.multiply(price, size)
    # the limit is for what is kept: rounding may reach it
    rounded = MONEY.quantize(product, QUANTUM)
    if rounded >= LIMIT:
        raise RejectionError(Reason.OUT_OF_RANGE, f"notional {shown(str(product))} has more than 20 integer digits")
    return rounded


def event_time_us(name: str, time: datetime, received: int) -> int:
    """Microseconds since the epoch of a time that is neither before 2009 nor more than 60 s after receipt."""
    since = time - EPOCH
    event_us = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if event_us < FIRST_EVENT_US:
        raise RejectionError(Reason.TIME_BEFORE_2009, f"{name} {time.isoformat()} is before {FIRST_YEAR}")
    if event_us > received + MAX_FUTURE_US:
        ahead = (event_us - received) / 1e6
        raise RejectionError(Reason.TIME_IN_FUTURE, f"{name} {time.isoformat()} is {ahead:.3f} s after receipt")
    return event_us


def epoch_us(name: str, number: int, received: int) -> int:
    """Microseconds since the epoch of a time in milliseconds or microseconds, told apart by its size.

    A number of 15 digits or more is microseconds: as milliseconds it would be after the year 5138.
    """
    if number < 0:
        raise RejectionError(Reason.BAD_TIME, f"{name} {number} is no time")
    return in_time_us(name, number, number if number >= _LEAST_MICROSECONDS else number * 1000, received)


def in_time_us(name: str, number: int, event_us: int, received: int) -> int:
    """The microseconds that a number means, if they are neither before 2009 nor more than 60 s after receipt."""
    if event_us < FIRST_EVENT_US:
        raise RejectionError(Reason.TIME_BEFORE_2009, f"{name} {number} is before {FIRST_YEAR}")
    if event_us > received + MAX_FUTURE_US:
        ahead = (event_us - received) / 1e6
        raise RejectionError(Reason.TIME_IN_FUTURE, f"{name} {number} is {ahead:.3f} s after receipt")
    return event_us


def item_of(make: Callable[[], Item]) -> Item:
    """The item that `make` gives, or why it cannot be a row."""
    try:
        return make()
    except RejectionError as rejection:
        return RejectedItem(rejection.reason, rejection.detail)


class Fields:
    """A JSON object read field by field. Every method raises a RejectionError that names the field and its value."""

    def __init__(self, raw: dict[str, msgspec.Raw]) -> None:
        self._raw = raw

    def _value(self, name: str) -> bytes | None:
        """The field's JSON text; None where it is absent or null."""
        raw = self._raw.get(name)
        if raw is None:
            return None
        value = bytes(raw).strip()
        return None if value == b"null" else value

    def _required(self, name: str) -> bytes:
        value = self._value(name)
        if value is None:
            state = "null" if name in self._raw else "missing"
            raise RejectionError(Reason.MISSING_FIELD, f"{name} is {state}")
        return value

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._value(name) is not None

    def text(self, name: str) -> str:
        """A text that is not empty. NUL is refused: PostgreSQL's text cannot hold it."""
        value = self._required(name)
        try:
            text = _TEXT.decode(value)
        except DECODE_ERRORS:
            raise RejectionError(Reason.WRONG_TYPE, f"{name} is {_json(value)}, not text") from None
        if "\x00" in text:
            raise RejectionError(Reason.WRONG_TYPE, f"{name} {shown(text)} holds a NUL character")
        if not text:
            raise RejectionError(Reason.MISSING_FIELD, f"{name} is empty")
        return text

    def integer(self, name: str, maximum: int = INT64_MAX) -> int:
        """An integer from 0 to `maximum`."""
        value = self._required(name)
        if not _ANY_NUMBER(value.decode("utf-8", "replace")):
            raise RejectionError(Reason.WRONG_TYPE, f"{name} is {_json(value)}, not an integer")
        try:
            number = _INTEGER.decode(value)
        except DECODE_ERRORS:
            if value.lstrip(b"-").isdigit():  # an integer of thousands of digits
                raise RejectionError(Reason.OUT_OF_RANGE, f"{name} {_json(value)} is beyond {maximum}") from None
            raise RejectionError(Reason.WRONG_TYPE, f"{name} is {_json(value)}, not an integer") from None
        if not 0 <= number <= maximum:
            raise RejectionError(Reason.OUT_OF_RANGE, f"{name} {_json(value)} is not within 0 to {maximum}")
        return number

    def optional_integer(self, name: str, maximum: int = INT64_MAX) -> int | None:
        """The same, or None where it is absent or null."""
        return self.integer(name, maximum) if self.has(name) else None

    def number(self, name: str) -> Decimal:
        """A number, exactly as written, from a JSON number or a text that holds one."""
        value = self._required(name)
        text = self.text(name) if value.startswith(b'"') else value.decode("utf-8", "replace")
        if not _ANY_NUMBER(text):
            raise RejectionError(Reason.WRONG_TYPE, f"{name} is {shown(text)}, not a number")
        return in_range(name, Decimal(text))

    def positive(self, name: str) -> Decimal:
        """A number above zero: a price or a size."""
        number = self.number(name)
        if number <= 0:
            raise RejectionError(Reason.NOT_POSITIVE, f"{name} {number} is not positive")
        return number

    def optional_positive(self, name: str) -> Decimal | None:
        """The same, or None where it is absent or null."""
        return self.positive(name) if self.has(name) else None

    def optional_figure(self, name: str) -> Decimal | None:
        """A total that may be zero but not negative, or None where it is absent or null."""
        number = self.optional_number(name)
        if number is not None and number < 0:
            raise RejectionError(Reason.OUT_OF_RANGE, f"{name} {number} is negative")
        return number

    def optional_number(self, name: str) -> Decimal | None:
        """A number of any sign, or None where it is absent or null."""
        return self.number(name) if self.has(name) else None

    def time_us(self, name: str, received: int) -> int:
        """A time with its zone, checked by event_time_us. Digits beyond the microsecond are rounded."""
        value = self._required(name)
        try:
            time = _TIME.decode(value)
        except DECODE_ERRORS:
            raise RejectionError(Reason.BAD_TIME, f"{name} is {_json(value)}, not a time with a zone") from None
        return event_time_us(name, time, received)

    def epoch_us(self, name: str, received: int) -> int:
        """A time as a number of milliseconds or microseconds, checked by epoch_us."""
        value = self._required(name)
        if not value.isdigit() or len(value) > 18:
            raise RejectionError(Reason.BAD_TIME, f"{name} is {_json(value)}, not milliseconds or microseconds")
        return epoch_us(name, int(value), received)

    def seconds_us(self, name: str, received: int) -> int:
        """A time as a whole number of seconds, checked by epoch_us."""
        value = self._required(name)
        if not value.isdigit() or len(value) > 12:
            raise RejectionError(Reason.BAD_TIME, f"{name} is {_json(value)}, not seconds")
        return in_time_us(name, int(value), int(value) * 1_000_000, received)

    def optional_rounded(self, name: str) -> Decimal | None:
        """A measure that the venue computes as a double, half-even to 18 places; None where it is absent or null.

        For ratios alone, never for money: a double's last digits mean nothing, and they are no reason to lose a price.
        """
        if not self.has(name):
            return None
        value = self._required(name).decode("utf-8", "replace")
        if not _ANY_NUMBER(value):
            raise RejectionError(Reason.WRONG_TYPE, f"{name} is {shown(value)}, not a number")
        number = Decimal(value)
        if number and (number.adjusted() >= MAX_INTEGER_DIGITS or len(number.as_tuple().digits) > MONEY.prec):
            raise RejectionError(Reason.OUT_OF_RANGE, f"{name} {shown(value)} has too many digits")
        return in_range(name, MONEY.quantize(number, QUANTUM))

    def members(self) -> list[tuple[str, msgspec.Raw]]:
        """Names and values, not yet decoded."""
        return list(self._raw.items())

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self._required(name)
        if value not in (b"true", b"false"):
            raise RejectionError(Reason.WRONG_TYPE, f"{name} is {_json(value)}, neither true nor false")
        return value == b"true"

    def object(self, name: str) -> Fields:
        """An object inside this one."""
        self._required(name)
        return fields_of(self._raw[name])

    def elements(self, name: str) -> list[msgspec.Raw]:
        """The elements of an array inside this object."""
        self._required(name)
        return elements_of(self._raw[name])


def _json(value: bytes) -> str:
    return shown(value.decode("utf-8", "replace"))
