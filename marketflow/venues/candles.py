"""Candles, which every venue gives in its own shape: a page of one product and one interval, named by the headers.

A candle is kept only when it is over: one whose end is after the page's receipt may still change. Prices are exact.
A total that a venue computes as a double is rounded to 18 places, since its last digits mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import msgspec

from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import Candle, Outcome
from marketflow.contracts.silver import CANDLE_INTERVALS_S
from marketflow.venues import messages
from marketflow.venues.validation import Fields, RejectionError, elements_of, in_time_us, shown


@dataclass(frozen=True, slots=True)
class Page:
    """What the headers say of every candle of a page; `received` and `length_us` are µs."""

    venue: str
    product_id: str
    interval: str
    length_us: int
    received: int


def page_of(headers: Mapping[str, str], venue: str, received: int, *, default_interval: str | None = None) -> Page:
    """The page of a product that `venue` has; a RejectionError where product_id or interval is missing or unknown."""
    product = messages.product_in(headers, venue)
    interval = headers.get("interval", default_interval) or ""
    if interval not in CANDLE_INTERVALS_S:
        raise RejectionError(
            Reason.BAD_HEADERS, f"header interval is {shown(interval)}, none of {', '.join(CANDLE_INTERVALS_S)}"
        )
    return Page(venue, product, interval, CANDLE_INTERVALS_S[interval] * 1_000_000, received)


def parsed(page: Page, elements: Sequence[msgspec.Raw], make: Callable[[Page, msgspec.Raw], Candle]) -> Outcome:
    """A candle an element, each accepted or rejected by itself."""
    return messages.page(elements, partial(make, page))


def row(element: msgspec.Raw, names: Sequence[str]) -> Fields:
    """The first values of an array by these names; what follows them is not read."""
    values = elements_of(bytes(element))
    if len(values) < len(names):
        raise RejectionError(Reason.UNEXPECTED_SHAPE, f"a row of {len(values)} values, not of {len(names)} or more")
    return Fields(dict(zip(names, values, strict=False)))


def seconds_us(fields: Fields, name: str, received: int) -> int:
    """A time as a text of whole seconds, in µs, checked as all times are."""
    text = fields.text(name)
    if not (text.isascii() and text.isdigit()) or len(text) > 12:
        raise RejectionError(Reason.BAD_TIME, f"{name} is {shown(text)}, not seconds")
    return in_time_us(name, int(text), int(text) * 1_000_000, received)


def total(name: str, number: Decimal | None) -> Decimal:
    """A total that must be there and may be zero."""
    if number is None:
        raise RejectionError(Reason.MISSING_FIELD, f"{name} is null or missing")
    if number < 0:
        raise RejectionError(Reason.OUT_OF_RANGE, f"{name} {number} is negative")
    return number


def optional_total(name: str, number: Decimal | None) -> Decimal | None:
    """The same, or None where the venue does not say it."""
    return None if number is None else total(name, number)


def closed(page: Page, open_us: int) -> int:
    """The opening time of a candle that lies on its interval's grid and was over when the page arrived."""
    if open_us % page.length_us:
        raise RejectionError(Reason.BAD_TIME, f"{open_us} µs is not on the grid of {page.interval}")
    missing = open_us + page.length_us - page.received
    if missing > 0:
        raise RejectionError(
            Reason.INCOMPLETE_CANDLE, f"the {page.interval} candle of {open_us} µs ended {missing / 1e6:.6f} s later"
        )
    return open_us


def candle(
    page: Page,
    open_us: int,
    fields: Fields,
    *,
    volume: Decimal,
    notional: Decimal | None = None,
    trade_count: int | None = None,
) -> Candle:
    """The candle whose prices stand in the fields open, high, low and close."""
    first, high, low, last = (fields.positive(name) for name in ("open", "high", "low", "close"))
    if high < low:
        raise RejectionError(Reason.INCONSISTENT_CANDLE, f"high {high} is below low {low}")
    for name, price in (("open", first), ("close", last)):
        if not low <= price <= high:
            raise RejectionError(Reason.INCONSISTENT_CANDLE, f"{name} {price} is not within {low} to {high}")
    return Candle(
        venue=page.venue,
        product_id=page.product_id,
        interval=page.interval,
        open_us=open_us,
        open=first,
        high=high,
        low=low,
        close=last,
        volume=volume,
        notional=notional,
        trade_count=trade_count,
    )
