"""The captured tape: price, size, taker side and spacing of real trades; source and licence are in README.md here."""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

FOLDER = Path(__file__).resolve().parent
MATCHES = FOLDER / "exchange-matches-btc-eth-2026-07-07.filtered.ndjson"


class TapeTrade(NamedTuple):
    """One captured trade. `spacing_us` is the time since the product's previous trade; 0 inside a taker's sweep."""

    price: Decimal
    size: Decimal
    taker_side: Literal["buy", "sell"]
    spacing_us: int


@cache
def load() -> dict[str, tuple[TapeTrade, ...]]:
    """The tape of each captured product, in trade_id order. `last_match` only dates the first trade's spacing."""
    messages = [json.loads(line) for line in MATCHES.read_text().splitlines()]
    trades = [message for message in messages if message["type"] in ("last_match", "match")]
    tape: dict[str, list[TapeTrade]] = {}
    previous: dict[str, datetime] = {}
    for trade in sorted(trades, key=lambda trade: int(trade["trade_id"])):
        product_id, moment = trade["product_id"], datetime.fromisoformat(trade["time"])
        if product_id in previous:
            spacing = moment - previous[product_id]
            # the capture's side is the maker's
            taker_side: Literal["buy", "sell"] = "buy" if trade["side"] == "sell" else "sell"
            tape.setdefault(product_id, []).append(
                TapeTrade(
                    Decimal(trade["price"]),
                    Decimal(trade["size"]),
                    taker_side,
                    max(0, round(spacing.total_seconds() * 1e6)),
                )
            )
        previous[product_id] = moment
    return {product_id: tuple(trades) for product_id, trades in tape.items()}
