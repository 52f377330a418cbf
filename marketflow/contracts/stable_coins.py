"""Coins that are worth a dollar: what tells a page in dollars from one in another currency, as data.

docs/decisions/0009-page-currency.md says why, and what it cannot see.
"""

from __future__ import annotations

from decimal import Decimal

# Each venue's own identifiers. Only coins that are redeemed or hedged to one dollar and are traded close to it.
PEGGED_TO_USD: dict[str, frozenset[str]] = {
    "coingecko": frozenset(
        (
            *("tether", "usd-coin", "dai", "usds", "ethena-usde", "paypal-usd", "first-digital-usd", "true-usd"),
            *("binance-usd", "usd1-wlfi", "global-dollar", "ripple-usd", "falcon-finance", "usdd", "frax", "gho"),
            *("crvusd", "paxos-standard", "gemini-dollar", "liquity-usd", "binance-bridged-usdt-bnb-smart-chain"),
            *("usd-coin-ethereum-bridged", "bridged-usdc-polygon-pos-bridge"),
        )
    ),
    "coincap": frozenset(
        (
            *("tether", "usd-coin", "multi-collateral-dai", "dai", "usds", "ethena-usde", "paypal-usd"),
            *("first-digital-usd", "true-usd", "trueusd", "binance-usd", "paxos-standard", "gemini-dollar", "usdd"),
        )
    ),
    "cryptocompare": frozenset(
        ("USDT", "USDC", "DAI", "USDS", "USDE", "PYUSD", "FDUSD", "TUSD", "BUSD", "USDP", "GUSD", "RLUSD", "USDD")
    ),
    # venue new: pegged
}
# How far from a dollar such a coin may be and still say that the page is in dollars.
NEAR_A_DOLLAR = Decimal("0.03")
# How far two of them may be from each other and still say the same.
SAME_WORD = Decimal("0.005")
