"""Pages of `/coins/markets`, byte for byte in the aggregator's shape: 26 keys, numbers as numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import msgspec

from marketflow.simulator.assets import Quotation, price_text
from marketflow.simulator.randomness import stable_number, stream
from marketflow.simulator.texts import SECOND_US, rfc3339_ms

IMAGES = "https://coin-images.coingecko.com/coins/images"
FIRST_PEAK_US = 1_500_000_000 * SECOND_US
ORDERS: dict[str, Callable[[Quotation], Any]] = {
    "market_cap_desc": lambda quotation: -int(quotation.market_cap),
    "market_cap_asc": lambda quotation: int(quotation.market_cap),
    "volume_desc": lambda quotation: -turnover(quotation),
    "volume_asc": lambda quotation: turnover(quotation),
    "id_asc": lambda quotation: quotation.asset_id,
    "id_desc": lambda quotation: tuple(-ord(letter) for letter in quotation.asset_id),
}


def _number(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def turnover(quotation: Quotation) -> int:
    """Daily turnover: a coin's own share of its market cap, breathing with its price."""
    share = 0.01 + stable_number("turnover", quotation.asset_id, below=1000) / 10_000
    return round(int(quotation.market_cap) * share)


@lru_cache(maxsize=2048)
def _history(asset_id: str, start_price: float) -> tuple[float, str, float, str]:
    """All-time high and low with their days, in usd; imagined once per coin."""
    random = stream("history", asset_id)
    high, low = start_price * random.uniform(1.3, 9.0), start_price * random.uniform(0.002, 0.6)
    peak_us = FIRST_PEAK_US + random.randrange(250_000_000) * SECOND_US + random.randrange(1000) * 1000
    trough_us = FIRST_PEAK_US - random.randrange(90_000_000) * SECOND_US
    return high, rfc3339_ms(peak_us), low, rfc3339_ms(trough_us)


def _change(now: float, before: float) -> tuple[float, float]:
    return now - before, round(100 * (now / before - 1), 5)


def item(quotation: Quotation) -> bytes:
    """One coin's object. The same quotation gives the same bytes on every page it is on."""
    coin, day, price = quotation.coin, quotation.day, float(quotation.price)
    market_cap, supply = int(quotation.market_cap), quotation.supply
    unit = float(coin.price) / price  # near usd per unit of the currency: history is imagined in usd
    high, high_date, low, low_date = _history(coin.id, float(coin.price))
    high, low = max(high / unit, day.high, price), min(low / unit, day.low, price)
    price_change, price_change_pct = _change(price, day.open)
    cap_change, cap_change_pct = _change(market_cap, round(day.open * supply))
    total = float(coin.max_supply) if coin.max_supply and coin.max_supply > supply else supply
    has_total = stable_number("total_supply", coin.id, below=20) > 0
    roi = {"times": 37.62811489665523, "currency": "btc", "percentage": 3762.8114896655225}
    return msgspec.json.encode(
        {
            "id": coin.id,
            "symbol": coin.symbol,
            "name": coin.name,
            "image": f"{IMAGES}/{stable_number('image', coin.id, below=70_000)}/large/{coin.id}.png",
            "current_price": _number(quotation.price),
            "market_cap": _number(quotation.market_cap),
            "market_cap_rank": quotation.rank,
            "fully_diluted_valuation": round(market_cap / supply * total) if has_total else None,
            "total_volume": turnover(quotation),
            "high_24h": _number(price_text(max(day.high, price))),
            "low_24h": _number(price_text(min(day.low, price))),
            "price_change_24h": price_change,
            "price_change_percentage_24h": price_change_pct,
            "market_cap_change_24h": cap_change,
            "market_cap_change_percentage_24h": cap_change_pct,
            "circulating_supply": supply,
            "total_supply": total if has_total else None,
            "max_supply": float(coin.max_supply) if coin.max_supply else None,
            "ath": _number(price_text(high)),
            "ath_change_percentage": _change(price, high)[1],
            "ath_date": high_date,
            "atl": low,
            "atl_change_percentage": _change(price, low)[1],
            "atl_date": low_date,
            "roi": roi if coin.id == "ethereum" else None,
            "last_updated": rfc3339_ms(quotation.last_updated_us),
        }
    )


class Pages:
    """Cuts the published quotations into pages; an item is encoded once per refresh."""

    def __init__(self) -> None:
        self._items: dict[tuple[str, str], tuple[int, bytes]] = {}

    def _item(self, quotation: Quotation) -> bytes:
        key = quotation.asset_id, quotation.vs_currency
        known = self._items.get(key)
        if known is None or known[0] != quotation.last_updated_us:
            known = self._items[key] = quotation.last_updated_us, item(quotation)
        return known[1]

    def page(self, quotations: Iterable[Quotation], *, order: str, per_page: int, page: int) -> list[bytes]:
        """The items of one page, numbered from 1; none beyond the end."""
        ranked = sorted(quotations, key=ORDERS[order])
        return [self._item(quotation) for quotation in ranked[(page - 1) * per_page : page * per_page]]


def body(items: Iterable[bytes]) -> bytes:
    """The page as sent."""
    return b"[" + b",".join(items) + b"]"
