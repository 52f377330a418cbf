"""What the simulated exchange lists: increments, typical sizes and where each product's ids begin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from marketflow.contracts.products import PRODUCTS
from marketflow.errors import ConfigurationError
from marketflow.simulator.faults import BINANCE, COINBASE
from marketflow.simulator.randomness import stable_number
from marketflow.simulator.texts import SIZE_DECIMALS
from marketflow.simulator.universe import coin_of_symbol

# What a unit of each currency costs in usd; quotes that are coins take the coin's own price.
USD_PER_UNIT = {"usd": 1.0, "eur": 1.08, "gbp": 1.27, "jpy": 0.0067, "chf": 1.12, "aud": 0.66, "cad": 0.73}
TYPICAL_ORDER_USD = 150.0
TYPICAL_LEVEL_USD = 4_000.0
MAJORS = ("BTC", "ETH")
DOLLARS = ("USD", "USDT")


@dataclass(frozen=True, slots=True)
class Listing:
    """One product, which is one book of one exchange. Prices are integers of 10^-price_decimals, sizes of 10^-8.

    `venue` owns the book: Advanced Trade is another door to Coinbase Exchange's. `time_step_us` is how finely it
    tells time.
    """

    product_id: str
    venue: str
    time_step_us: int
    asset_id: str
    quote: str
    price_decimals: int
    start_price: int
    typical_order: int
    typical_level: int
    volatility_per_sqrt_second: float
    first_trade_id: int
    first_sequence: int


def _usd_price(currency: str) -> float:
    if currency.lower() in USD_PER_UNIT:
        return USD_PER_UNIT[currency.lower()]
    coin = coin_of_symbol(currency)
    if coin is None:
        raise ConfigurationError(f"the simulator knows no price of {currency}: add it to simulator/universe.ndjson")
    return float(coin.price)


def listing(product_id: str) -> Listing:
    """The listing of a canonical product; everything follows from its two currencies."""
    product = PRODUCTS[product_id]
    coin = coin_of_symbol(product.base)
    base_usd = _usd_price(product.base)
    price = base_usd / _usd_price(product.quote)
    # the majors have cents; all others five significant digits, as exchanges list them
    decimals = 2 if product.base in MAJORS and product.quote in DOLLARS else 4 - math.floor(math.log10(price))
    decimals = min(max(decimals, 2), 8)
    annual_volatility = 0.6 if product.base in MAJORS else 0.9
    venue = next(name for name in (COINBASE, BINANCE) if name in product.names)
    return Listing(
        product_id=product_id,
        venue=venue,
        time_step_us=1000 if venue == BINANCE else 1,
        asset_id=coin.id if coin else "",
        quote=product.quote.lower(),
        price_decimals=decimals,
        start_price=max(4, round(price * 10**decimals)),
        typical_order=max(1, round(TYPICAL_ORDER_USD / base_usd * 10**SIZE_DECIMALS)),
        typical_level=max(100, round(TYPICAL_LEVEL_USD / base_usd * 10**SIZE_DECIMALS)),
        volatility_per_sqrt_second=annual_volatility / math.sqrt(365.25 * 86_400),
        first_trade_id=100_000_000 + stable_number("trade_id", product_id, below=800_000_000),
        first_sequence=10_000_000_000 + stable_number("sequence", product_id, below=80_000_000_000),
    )
