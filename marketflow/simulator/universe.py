"""The coins that the simulated aggregator knows: real ids, symbols and names, plausible prices and supplies."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

UNIVERSE = Path(__file__).resolve().parent / "universe.ndjson"


class Coin(msgspec.Struct, frozen=True):
    """One coin at the start of the market, in usd.

    `kind` is `coin` (moves with the market), `stable` (stays near its price) or `follows:<id>` (wraps another coin).
    """

    id: str
    symbol: str
    name: str
    price: str
    market_cap: int
    max_supply: int | None
    kind: str


@cache
def load() -> tuple[Coin, ...]:
    """All coins, the largest first."""
    decoder = msgspec.json.Decoder(Coin)
    coins = [decoder.decode(line) for line in UNIVERSE.read_bytes().splitlines()]
    return tuple(sorted(coins, key=lambda coin: -coin.market_cap))


@cache
def coin_of_symbol(symbol: str) -> Coin | None:
    """The largest coin of that symbol; symbols collide."""
    return next((coin for coin in load() if coin.symbol == symbol.lower()), None)
