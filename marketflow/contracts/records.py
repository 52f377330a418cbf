"""What a parser yields. Money is Decimal, times are integer microseconds since the epoch, UTC."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import msgspec

from marketflow.contracts.reasons import Reason

Side = Literal["buy", "sell"]


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One trade, as silver.trades keeps it."""

    venue: str
    product_id: str
    trade_id: int
    price: Decimal
    size: Decimal
    notional: Decimal
    taker_side: Side
    side_raw: str
    event_us: int
    sequence: int | None
    # true where price and size were floats before they were text
    float_born: bool | None = None


class Quote(msgspec.Struct, frozen=True, gc=False):
    """One best bid and ask, as silver.quotes keeps it."""

    venue: str
    product_id: str
    sequence: int | None
    event_us: int
    best_bid: Decimal
    best_bid_size: Decimal | None
    best_ask: Decimal
    best_ask_size: Decimal | None
    last_price: Decimal | None
    last_trade_id: int | None
    open_24h: Decimal | None
    high_24h: Decimal | None
    low_24h: Decimal | None
    volume_24h: Decimal | None


class AssetPrice(msgspec.Struct, frozen=True, gc=False):
    """One aggregator's price, as silver.asset_prices keeps it (poll columns come from the headers)."""

    source: str
    asset_id: str
    vs_currency: str
    last_updated_us: int
    symbol: str
    name: str
    price: Decimal
    market_cap: Decimal | None
    market_cap_rank: int | None
    fully_diluted_valuation: Decimal | None
    volume_24h: Decimal | None
    high_24h: Decimal | None
    low_24h: Decimal | None
    change_24h_pct: Decimal | None
    circulating_supply: Decimal | None
    total_supply: Decimal | None
    max_supply: Decimal | None


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One candle as its venue reports it, as silver.candles keeps it."""

    venue: str
    product_id: str
    interval: str
    open_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    notional: Decimal | None
    trade_count: int | None


class RejectedItem(msgspec.Struct, frozen=True, gc=False):
    """An item that cannot be a row: why, and a sentence that names field and value."""

    reason: Reason
    detail: str


class Ignored(msgspec.Struct, frozen=True, gc=False):
    """A message that carries no data, counted under `name`."""

    name: str


Item = Trade | Quote | AssetPrice | Candle | RejectedItem


class Parsed(msgspec.Struct, frozen=True, gc=False):
    """A message that gave n ≥ 1 items; an item's index is its position."""

    items: tuple[Item, ...]


class Unparseable(msgspec.Struct, frozen=True, gc=False):
    """A message that gave none: one row in silver.rejected with item_index -1."""

    reason: Reason
    detail: str


Outcome = Ignored | Parsed | Unparseable
