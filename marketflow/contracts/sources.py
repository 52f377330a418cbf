"""The sources: which producers there are, whose messages each brings, and what belongs to it elsewhere, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from marketflow.contracts.products import PRODUCTS

Kind = Literal["feed", "poller"]
# before an exchange's name in the library, e.g. ccxt_kraken: the venues of source ccxt
CCXT_PREFIX = "ccxt_"
# the first text after all that begin so: bounds of files are looked at with it
CCXT_AFTER = "ccxt`"


@dataclass(frozen=True, slots=True)
class Source:
    """One producer. `name` is what settings and `python -m marketflow.ingest` call it.

    `brings` are the silver tables that its items go to. `in_sim` and `in_live` say whether it runs without being asked
    for in that dataset. `places` are its addresses by the names of `Settings.venue_urls`; `settings` are the settings
    beyond the common ones that change what it does.
    """

    name: str
    venue: str
    kind: Kind
    short: str
    brings: tuple[str, ...]
    in_sim: bool
    in_live: bool
    places: tuple[str, ...]
    settings: tuple[str, ...] = ()

    @property
    def service(self) -> str:
        """The name of its service: producer-coinbase."""
        return f"producer-{self.short}"

    @property
    def metrics_port_setting(self) -> str:
        """The setting that holds the port of its Prometheus metrics."""
        return f"producer_{self.short.replace('-', '_')}_metrics_port"

    @property
    def url_settings(self) -> tuple[str, ...]:
        """The settings that name its places."""
        return tuple(f"{place}_url" for place in self.places)

    @property
    def is_feed(self) -> bool:
        """Whether it listens, and not asks."""
        return self.kind == "feed"

    @property
    def by_product(self) -> bool:
        """Whether it collects the products that are asked for, and not an aggregator's assets."""
        return self.is_feed or self.venue == "binance"

    def products(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the asked products that its venue trades."""
        return tuple(product for product in asked if self.venue in PRODUCTS[product].names)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="coinbase_exchange",
            venue="coinbase_exchange",
            kind="feed",
            short="coinbase",
            brings=("trades", "quotes"),
            in_sim=True,
            in_live=True,
            places=("coinbase_ws", "coinbase_rest"),
        ),
        Source(
            name="coingecko",
            venue="coingecko",
            kind="poller",
            short="coingecko",
            brings=("asset_prices",),
            in_sim=True,
            in_live=True,
            places=("coingecko_rest",),
            settings=(
                "vs_currencies",
                "coingecko_assets",
                "coingecko_poll_interval_s",
                "coingecko_plan",
                "coingecko_api_key",
            ),
        ),
        Source(
            name="binance",
            venue="binance",
            kind="feed",
            short="binance",
            brings=("trades", "quotes"),
            in_sim=True,
            in_live=True,
            places=("binance_ws", "binance_rest"),
        ),
        # the same book as Coinbase Exchange's: who adds up venues would count its trades twice, so it is asked for
        Source(
            name="coinbase_advanced",
            venue="coinbase_advanced",
            kind="feed",
            short="coinbase-advanced",
            brings=("trades", "quotes"),
            in_sim=False,
            in_live=False,
            places=("coinbase_advanced_ws", "coinbase_advanced_rest"),
        ),
        Source(
            name="binance_prices",
            venue="binance",
            kind="poller",
            short="binance-prices",
            brings=("asset_prices",),
            in_sim=True,
            in_live=True,
            places=("binance_rest",),
            settings=("binance_prices_poll_interval_s",),
        ),
        # its API needs a key
        Source(
            name="coincap",
            venue="coincap",
            kind="poller",
            short="coincap",
            brings=("asset_prices",),
            in_sim=True,
            in_live=False,
            places=("coincap_rest",),
            settings=("coincap_assets", "coincap_poll_interval_s", "coincap_plan", "coincap_api_key"),
        ),
        # its free tier ended on 2026-05-21
        Source(
            name="cryptocompare",
            venue="cryptocompare",
            kind="poller",
            short="cryptocompare",
            brings=("asset_prices",),
            in_sim=False,
            in_live=False,
            places=("cryptocompare_rest",),
            settings=(
                "vs_currencies",
                "cryptocompare_symbols",
                "cryptocompare_poll_interval_s",
                "cryptocompare_plan",
                "cryptocompare_api_key",
            ),
        ),
        # any exchange that the library knows, by polling, as floats: for those that have no source of their own here
        Source(
            name="ccxt",
            venue="ccxt",
            kind="poller",
            short="ccxt",
            brings=("trades",),
            in_sim=False,
            in_live=False,
            places=(),
            settings=("ccxt_exchanges", "ccxt_products", "ccxt_poll_interval_s", "ccxt_limit", "ccxt_options"),
        ),
        # venue new: source
    )
}
BY_SERVICE: dict[str, Source] = {source.service: source for source in SOURCES.values()}


def numbers_each_trade(venue: str) -> bool:
    """Whether ids of a venue go up by one from trade to trade, so that a missing id is a missing trade."""
    return not venue.startswith(CCXT_PREFIX)
