"""What a poller has to know of each polled source: the calls of one poll, its key, and how its answers ask for rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.sources import SOURCES
from marketflow.contracts.topics import PRICES, Topic
from marketflow.settings import Settings
from marketflow.venues import binance, coincap, coingecko, cryptocompare


@dataclass(frozen=True, slots=True)
class Request:
    """One call. `text` is its canonical path and sorted query, without any secret; `units` is what a plan counts.

    `vs_currency` is there where the answer does not say what its prices are in.
    """

    text: str
    page: int
    units: int = 1
    vs_currency: str | None = None


@dataclass(frozen=True, slots=True)
class Poll:
    """One polled source.

    `title` is for people. `requests` are the calls of one poll, `made_of` says how their number comes about and
    `fewer` which setting makes it smaller. `key_headers` go to the venue and nowhere else. `asks_to_wait_s` reads an
    answer with status 200; `used_header` is the answer's header that tells what was spent in this minute.
    """

    title: str
    channel: str
    requests: Callable[[Settings], tuple[Request, ...]]
    made_of: Callable[[Settings], str]
    fewer: str | None = None
    key_headers: Callable[[Settings], dict[str, str]] = lambda settings: {}
    asks_to_wait_s: Callable[[bytes], float | None] = lambda value: None
    used_header: str | None = None
    topic: Topic = PRICES

    def units(self, settings: Settings) -> int:
        """What one poll costs."""
        return sum(request.units for request in self.requests(settings))


def _coingecko(settings: Settings) -> tuple[Request, ...]:
    pages, per_page = coingecko.pages_per_currency(settings.coingecko_assets)
    return tuple(
        Request(coingecko.page_request(currency, page, per_page), page, vs_currency=currency)
        for currency in settings.vs_currencies
        for page in range(1, pages + 1)
    )


def _coingecko_made_of(settings: Settings) -> str:
    pages, _ = coingecko.pages_per_currency(settings.coingecko_assets)
    return f"{pages} page(s) x {len(settings.vs_currencies)} currency(ies)"


def _coingecko_key(settings: Settings) -> dict[str, str]:
    if settings.coingecko_api_key is None or settings.coingecko_plan == "keyless":
        return {}
    name = coingecko.DEMO_KEY_HEADER if settings.coingecko_plan == "demo" else coingecko.PAID_KEY_HEADER
    return {name: settings.coingecko_api_key.get_secret_value()}


def _coincap(settings: Settings) -> tuple[Request, ...]:
    return (Request(coincap.page_request(1, settings.coincap_assets), 1),)


def _coincap_key(settings: Settings) -> dict[str, str]:
    key = settings.coincap_api_key
    return {} if key is None else {coincap.KEY_HEADER: f"Bearer {key.get_secret_value()}"}


def _cryptocompare(settings: Settings) -> tuple[Request, ...]:
    asked = [
        (symbols, currencies)
        for symbols in _lists(settings.cryptocompare_symbols, cryptocompare.MAX_SYMBOLS_TEXT)
        for currencies in _lists(settings.vs_currencies, cryptocompare.MAX_CURRENCIES_TEXT)
    ]
    return tuple(Request(cryptocompare.page_request(*each), page) for page, each in enumerate(asked, 1))


def _lists(names: tuple[str, ...], most_characters: int) -> Iterator[tuple[str, ...]]:
    """The names in as few lists as the limit of characters, commas included, allows."""
    taken: list[str] = []
    for name in names:
        if taken and len(",".join((*taken, name))) > most_characters:
            yield tuple(taken)
            taken = []
        taken.append(name)
    yield tuple(taken)


def _cryptocompare_key(settings: Settings) -> dict[str, str]:
    key = settings.cryptocompare_api_key
    return {} if key is None else {cryptocompare.KEY_HEADER: f"Apikey {key.get_secret_value()}"}


def _binance(settings: Settings) -> tuple[Request, ...]:
    """One call. Live it asks for every product of the registry: movers need more of them than are traded for."""
    source = SOURCES["binance_prices"]
    asked = source.products(tuple(PRODUCTS)) if settings.dataset == "live" else settings.products_of(source)
    return (Request(binance.ticker_request(asked), 1, units=binance.ticker_weight(len(asked))),) if asked else ()


def _calls(requests: Callable[[Settings], tuple[Request, ...]]) -> Callable[[Settings], str]:
    return lambda settings: f"{len(requests(settings))} call(s)"


def _binance_made_of(settings: Settings) -> str:
    found = _binance(settings)
    return f"{len(found)} call(s) of weight {sum(request.units for request in found)}"


POLLS: dict[str, Poll] = {
    "coingecko": Poll(
        title="CoinGecko",
        channel=coingecko.CHANNEL,
        requests=_coingecko,
        made_of=_coingecko_made_of,
        fewer="lower MARKETFLOW_COINGECKO_ASSETS",
        key_headers=_coingecko_key,
    ),
    "coincap": Poll(
        title="CoinCap",
        channel=coincap.CHANNEL,
        requests=_coincap,
        made_of=_calls(_coincap),
        key_headers=_coincap_key,
    ),
    "cryptocompare": Poll(
        title="CryptoCompare",
        channel=cryptocompare.CHANNEL,
        requests=_cryptocompare,
        made_of=_calls(_cryptocompare),
        fewer="shorten MARKETFLOW_CRYPTOCOMPARE_SYMBOLS",
        key_headers=_cryptocompare_key,
        asks_to_wait_s=cryptocompare.asks_to_wait_s,
    ),
    "binance_prices": Poll(
        title="Binance",
        channel=binance.TICKER_24HR,
        requests=_binance,
        made_of=_binance_made_of,
        used_header="X-MBX-USED-WEIGHT-1M",
    ),
    # venue new: poll
}
