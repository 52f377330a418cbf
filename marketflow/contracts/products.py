"""Canonical products and how each venue names them. A registry, never string surgery: symbols collide and lie."""

from __future__ import annotations

from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Product:
    """A traded pair. `product_id` is BASE-QUOTE; `names` maps a venue to that venue's own name."""

    product_id: str
    base: str
    quote: str
    names: dict[str, str] = field(default_factory=dict)


def _coinbase(base: str, quote: str = "USD") -> Product:
    product_id = f"{base}-{quote}"
    names = {"coinbase_exchange": product_id, "coinbase_advanced": product_id}
    if quote == "USD":
        names["cryptocompare"] = f"{base}/{quote}"
    return Product(product_id, base, quote, names)


def _binance(base: str, quote: str = "USDT") -> Product:
    return Product(f"{base}-{quote}", base, quote, {"binance": f"{base}{quote}"})


_BASES = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "LTC", "AVAX", "LINK", "DOT", "BAND", "SKL")
# Small pairs that the carried captures hold; nobody has to collect them.
_CAPTURED = (
    ("BAND", "BTC"),
    ("BAND", "GBP"),
    ("CRV", "EUR"),
    ("DASH", "BTC"),
    ("NMR", "EUR"),
    ("NU", "GBP"),
    ("SKL", "BTC"),
    ("SKL", "GBP"),
    ("YFI", "BTC"),
)

# How further venues name products that are there already: {"venue": {"BTC-USD": "XBT/USD"}}.
_MORE_NAMES: dict[str, dict[str, str]] = {
    # venue new: names
}


def _named(product: Product) -> Product:
    more = {venue: names[product.product_id] for venue, names in _MORE_NAMES.items() if product.product_id in names}
    return replace(product, names=product.names | more)


PRODUCTS: dict[str, Product] = {
    product.product_id: _named(product)
    for product in (
        *(_coinbase(base) for base in _BASES),
        *(_coinbase(base, quote) for base, quote in _CAPTURED),
        *(_binance(base) for base in _BASES if base not in ("BAND", "SKL")),
    )
}

# What CoinGecko prices coins in (its /simple/supported_vs_currencies, as published in 2025).
# fmt: off
VS_CURRENCIES = frozenset((
    "btc", "eth", "ltc", "bch", "bnb", "eos", "xrp", "xlm", "link", "dot", "yfi", "sol", "usd", "aed", "ars", "aud",
    "bdt", "bhd", "bmd", "brl", "cad", "chf", "clp", "cny", "czk", "dkk", "eur", "gbp", "gel", "hkd", "huf", "idr",
    "ils", "inr", "jpy", "krw", "kwd", "lkr", "mmk", "mxn", "myr", "ngn", "nok", "nzd", "php", "pkr", "pln", "rub",
    "sar", "sek", "sgd", "thb", "try", "twd", "uah", "vef", "vnd", "zar", "xdr", "xag", "xau", "bits", "sats",
))
# fmt: on

_BY_VENUE_NAME = {(venue, name): product for product in PRODUCTS.values() for venue, name in product.names.items()}


def by_venue_name(venue: str, name: str) -> Product | None:
    """The canonical product that `venue` calls `name`, or None where the registry does not know it."""
    return _BY_VENUE_NAME.get((venue, name))
