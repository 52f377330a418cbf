"""A Kafka record as bronze keeps it, and what one item of it must become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from marketflow.verify.wire_values import NoRow


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka record as bronze keeps it; times in µs."""

    value: bytes | None
    venue: str | None
    channel: str | None
    received_at: int | None
    http_status: int | None
    product_id: str | None
    vs_currency: str | None
    poll_id: str | None
    poll_started_at: int | None
    oversize: bool | None
    interval: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """What one item of a message must become: a row of `kind` (trades, quotes, asset_prices, candles), or a refusal."""

    index: int
    kind: str
    fields: dict[str, Any]
    why: str = ""


def refused(index: int, why: str) -> Item:
    """An item that belongs into quarantine."""
    return Item(index, "refused", {}, why)


def item(index: int, kind: str, make: Callable[[], dict[str, Any]]) -> Item:
    """A row, or the refusal that making it ended with."""
    try:
        return Item(index, kind, make())
    except NoRow as error:
        return refused(index, str(error))


def items(kind: str, elements: Sequence[Any], make: Callable[[Any], dict[str, Any]]) -> list[Item]:
    """One item for each element, in their order."""
    return [item(index, kind, lambda one=one: make(one)) for index, one in enumerate(elements)]  # type: ignore[misc]


def lacks_poll(message: Message) -> bool:
    """Whether the headers of a poll, which fill columns, are not all there."""
    return message.poll_id is None or message.poll_started_at is None
