"""The little that a feed sees of a message before it hands it on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from marketflow.contracts.topics import Topic
from marketflow.venues.validation import DECODE_ERRORS, INT64_MAX


class Seen(msgspec.Struct, gc=False):
    """Where a message goes and which ids it tells.

    `product_id` is canonical, and None where the message is not about one known product. `trades` are (product_id,
    trade_id) in ascending order of the ids. `announced` is the last trade that a heartbeat speaks of. `number` is the
    message's place in its connection, where the venue counts.
    """

    topic: Topic
    channel: str
    product_id: str | None = None
    trades: Sequence[tuple[str, int]] = ()
    announced: tuple[str, int] | None = None
    number: int | None = None


class _Traded(msgspec.Struct, gc=False):
    """One trade of a REST page: whichever of the venues' names its id has."""

    trade_id: int | str | None = None
    id: int | str | None = None


class _Page(msgspec.Struct, gc=False):
    trades: list[_Traded]


_LIST = msgspec.json.Decoder(list[_Traded])
_OBJECT = msgspec.json.Decoder(_Page)


def page_ids(value: bytes) -> list[int]:
    """Trade ids of a page of REST trades in the page's order; none where it is no such page. Never raises."""
    try:
        page = _OBJECT.decode(value).trades if value.lstrip().startswith(b"{") else _LIST.decode(value)
    except DECODE_ERRORS:
        return []  # silver quarantines it; it holds no trade that anyone could read
    return list(_numbers(page))


def _numbers(page: Iterable[_Traded]) -> Iterable[int]:
    for trade in page:
        number = identifier(trade.id if trade.trade_id is None else trade.trade_id)
        if number is not None:
            yield number


def identifier(told: int | str | None) -> int | None:
    """A trade id as an integer, whether told as a number or as its digits; None where it is none."""
    if isinstance(told, str):
        if not (told.isascii() and told.isdigit() and len(told) <= 19):
            return None
        told = int(told)
    return told if told is not None and 0 <= told <= INT64_MAX else None
