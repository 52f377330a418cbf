"""Whether a page asked in dollars is in dollars, by the page alone: docs/decisions/0009-page-currency.md."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from marketflow.contracts.reasons import Reason
from marketflow.contracts.records import AssetPrice, Item, RejectedItem
from marketflow.contracts.stable_coins import NEAR_A_DOLLAR, PEGGED_TO_USD, SAME_WORD

ONE = Decimal(1)


def refused_if_another(venue: str, items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The items of a page; all refused as `currency_suspect` where its stable coins say that it is not in dollars.

    They say so where none of them is within 3 % of a dollar and two of them agree, to 0.5 %, on another price. One
    that lost its peg is alone with its price, so it refuses nothing. What was refused before keeps its own reason.
    """
    told = _another_price(venue, items)
    if told is None:
        return items
    detail = f"asked in usd, but {told}: a page in another currency"
    return tuple(
        item if isinstance(item, RejectedItem) else RejectedItem(Reason.CURRENCY_SUSPECT, detail) for item in items
    )


def _another_price(venue: str, items: tuple[Item, ...]) -> str | None:
    """What the stable coins of the page agree on, as a sentence; None where they do not deny the dollar."""
    known = PEGGED_TO_USD[venue]
    prices = sorted(
        (item.price, item.asset_id)
        for item in items
        if isinstance(item, AssetPrice) and item.vs_currency == "usd" and item.asset_id in known
    )
    if any(abs(price - ONE) <= NEAR_A_DOLLAR for price, _ in prices):
        return None
    for (lower, one), (upper, other) in pairwise(prices):
        if upper <= lower * (ONE + SAME_WORD):
            return f"{one} is {lower:.6g} and {other} {upper:.6g}, and no stable coin is near 1"
    return None
