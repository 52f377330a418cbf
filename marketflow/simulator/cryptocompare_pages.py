"""Pages of CryptoCompare in the captures' field order: figures of RAW as numbers, DISPLAY as text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from marketflow.simulator.assets import Quotation, price_text
from marketflow.simulator.coingecko_wire import turnover
from marketflow.simulator.minutes import Candle
from marketflow.simulator.page_faults import SECONDS, ItemShape
from marketflow.simulator.randomness import stable_number

PRICE = ItemShape(price="PRICE", time="LASTUPDATE", clock=SECONDS)
CANDLE = ItemShape(price="close", size="volumefrom", time="time", clock=SECONDS)
SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def _number(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def raw(quotation: Quotation, symbol: str, updated_s: int) -> bytes:
    """The figures of one coin in one currency."""
    day, price, volume_to = quotation.day, float(quotation.price), float(turnover(quotation))
    volume, change = volume_to / price, price - day.open
    change_percent, supply = 100 * (price / day.open - 1), quotation.supply
    opened, high, low = (
        _number(price_text(figure)) for figure in (day.open, max(day.high, price), min(day.low, price))
    )
    spans = {
        f"{name}{span}": value
        for span in ("DAY", "24HOUR")
        for name, value in (("OPEN", opened), ("HIGH", high), ("LOW", low))
    }
    return msgspec.json.encode(
        {
            "TYPE": "5",
            "MARKET": "CCCAGG",
            "FROMSYMBOL": symbol,
            "TOSYMBOL": quotation.vs_currency.upper(),
            "FLAGS": "2052",
            "PRICE": _number(quotation.price),
            "LASTUPDATE": updated_s,
            "MEDIAN": _number(quotation.price),
            "LASTVOLUME": volume / 1_000_000,
            "LASTVOLUMETO": volume_to / 1_000_000,
            "LASTTRADEID": str(stable_number("trade", symbol, updated_s, below=10**9)),
            "VOLUMEDAY": volume / 2,
            "VOLUMEDAYTO": volume_to / 2,
            "VOLUME24HOUR": volume,
            "VOLUME24HOURTO": volume_to,
            **spans,
            "LASTMARKET": "Coinbase",
            "CHANGE24HOUR": change,
            "CHANGEPCT24HOUR": change_percent,
            "CHANGEDAY": change,
            "CHANGEPCTDAY": change_percent,
            "SUPPLY": supply,
            "MKTCAP": _number(quotation.market_cap),
            "CIRCULATINGSUPPLY": supply,
            "TOTALVOLUME24H": volume,
            "TOTALVOLUME24HTO": volume_to,
            "IMAGEURL": f"/media/{stable_number('image', symbol, below=90_000)}/{symbol.lower()}.png",
            "CONVERSIONTYPE": "direct",
            "CONVERSIONSYMBOL": "",
        }
    )


def _display(figures: dict[str, Any]) -> dict[str, str]:
    """The same for people."""
    sign = SIGNS.get(str(figures["TOSYMBOL"]).lower(), str(figures["TOSYMBOL"]))
    money = ("PRICE", "OPEN24HOUR", "HIGH24HOUR", "LOW24HOUR", "CHANGE24HOUR", "MKTCAP", "TOTALVOLUME24HTO")
    return {
        "FROMSYMBOL": str(figures["FROMSYMBOL"]),
        "TOSYMBOL": sign,
        "MARKET": "CryptoCompare Index",
        "LASTUPDATE": "Just now",
        **{name: f"{sign} {figures[name]:,}" for name in money},
        "CHANGEPCT24HOUR": f"{figures['CHANGEPCT24HOUR']:.2f}",
    }


def prices_body(good: Sequence[bytes], items: Sequence[bytes]) -> bytes:
    """RAW and DISPLAY of a page whose good figures are `good`; further items have keys of their own in RAW."""
    told: dict[str, dict[str, msgspec.Raw]] = {}
    display: dict[str, dict[str, dict[str, str]]] = {}
    for number, item in enumerate(items):
        figures = msgspec.json.decode(good[min(number, len(good) - 1)])
        symbol, currency = figures["FROMSYMBOL"], figures["TOSYMBOL"]
        if number < len(good):
            told.setdefault(symbol, {})[currency] = msgspec.Raw(item)
            display.setdefault(symbol, {})[currency] = _display(figures)
        else:
            told[f"{symbol}*{number}"] = {currency: msgspec.Raw(item)}
    return msgspec.json.encode({"RAW": told, "DISPLAY": display})


def candle(of: Candle) -> bytes:
    """One minute; numbers, as exact as they were traded."""
    figures = {
        "high": of.high,
        "low": of.low,
        "open": of.open,
        "volumefrom": of.volume,
        "volumeto": of.amount,
        "close": of.close,
    }
    numbers = {name: _number(f"{amount.normalize():f}") for name, amount in figures.items()}
    return msgspec.json.encode({"time": of.start_s, **numbers, "conversionType": "direct", "conversionSymbol": ""})


def candles_body(items: Sequence[bytes], from_s: int, to_s: int) -> bytes:
    """A page of candles."""
    data = {
        "Aggregated": False,
        "TimeFrom": from_s,
        "TimeTo": to_s,
        "Data": [msgspec.Raw(item) for item in items],
    }
    return msgspec.json.encode(
        {"Response": "Success", "Message": "", "HasWarning": False, "Type": 100, "RateLimit": {}, "Data": data}
    )


def error_body(message: str, kind: int) -> dict[str, object]:
    """What went wrong, with status 200."""
    return {
        "Response": "Error",
        "Message": message,
        "HasWarning": False,
        "Type": kind,
        "RateLimit": {},
        "Data": {},
    }
