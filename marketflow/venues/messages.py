"""What the parsers of all venues have in common: how a message begins, pages of one product, names of unknown types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps

import msgspec

from marketflow.contracts.products import PRODUCTS, by_venue_name
from marketflow.contracts.reasons import Reason, ignored_unknown
from marketflow.contracts.records import Ignored, Item, Outcome, Parsed, Unparseable
from marketflow.venues.validation import Fields, RejectionError, item_of, not_text, received_us, shown

Parser = Callable[[Mapping[str, str], bytes], Outcome]


def parser(read: Callable[[Mapping[str, str], bytes, int], Outcome]) -> Parser:
    """Make a parser of `read`, which gets the headers, a payload that is text, and when it was received in µs.

    A RejectionError that leaves `read` refuses the whole message.
    """

    @wraps(read)
    def parse(headers: Mapping[str, str], value: bytes) -> Outcome:
        try:
            received = received_us(headers)
            # most messages are ASCII, and a call that says so costs a hundredth of a trade
            unreadable = None if value and value.isascii() else not_text(value)
            return read(headers, value, received) if unreadable is None else unreadable
        except RejectionError as rejection:
            return Unparseable(rejection.reason, rejection.detail)

    return parse


def product_ids(venue: str) -> dict[str, str]:
    """The venue's names to ours, from the registry, as a plain dict because it is read once a message."""
    return {product.names[venue]: product.product_id for product in PRODUCTS.values() if venue in product.names}


def product_of(fields: Fields, name: str, venue: str) -> str:
    """The canonical product that the field names; a RejectionError where the registry does not know it."""
    text = fields.text(name)
    product = by_venue_name(venue, text)
    if product is None:
        raise RejectionError(Reason.UNKNOWN_PRODUCT, f"{name} {shown(text)} is not in the registry")
    return product.product_id


def product_in(headers: Mapping[str, str], venue: str) -> str:
    """The product of a page that does not name it, from its header; a RejectionError where it is none of the venue."""
    product = headers.get("product_id") or ""
    known = PRODUCTS.get(product)
    if known is None or venue not in known.names:
        raise RejectionError(Reason.BAD_HEADERS, f"header product_id is {shown(product)}, not a product of {venue}")
    return product


def page(elements: Sequence[msgspec.Raw], make: Callable[[msgspec.Raw], Item]) -> Outcome:
    """An item an element, each accepted or rejected by itself."""
    if not elements:
        return Ignored("empty_page")
    return Parsed(tuple(item_of(partial(make, element)) for element in elements))


def unknown(message_type: str) -> Ignored:
    """A well-formed message of a type or channel that nobody documented, under its printable name."""
    return Ignored(ignored_unknown("".join(c if c.isprintable() else "?" for c in message_type[:40])))
