"""The library ccxt behind the few calls that its poller makes.

Nothing else imports the library: it takes seconds and 100 MB, and only the process of source `ccxt` has to pay that.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import ccxt.async_support as library

from marketflow.errors import ConfigurationError, VenueError
from marketflow.settings import Settings
from marketflow.venues.ccxt_trades import MEMBERS, symbol_of

# the library's names of exchanges that the simulator speaks, and the place in `Settings.venue_urls` where it does
SIMULATED = {"coinbaseexchange": "coinbase_rest"}
# answers by which an exchange asks to be left alone
_ASKS_FOR_REST = (library.DDoSProtection, library.RateLimitExceeded)
REST_S = 60.0
_EXCHANGES = "MARKETFLOW_CCXT_EXCHANGES"
Answer = list[dict[str, Any]]


class CallError(VenueError):
    """A call that brought no trades; `label` is the library's word for why."""

    def __init__(self, exchange: str, error: BaseException) -> None:
        """`error` is the library's; what an exchange says may be a whole page, so it is cut."""
        super().__init__(
            f"{exchange}: {type(error).__name__}: {str(error)[:200]}",
            retry_after_s=REST_S if isinstance(error, _ASKS_FOR_REST) else None,
        )
        self.label = type(error).__name__


def check(settings: Settings) -> None:
    """Refuse exchanges that the library does not know or the dataset cannot reach.

    Raises:
        ConfigurationError: names the setting, what is wrong and what was probably meant.
    """
    if not settings.ccxt_exchanges:
        raise ConfigurationError(f"{_EXCHANGES}: at least one exchange is needed, such as kraken,bitstamp")
    for name in settings.ccxt_exchanges:
        if name not in library.exchanges:
            close = difflib.get_close_matches(name.lower(), library.exchanges, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(library.exchanges)}"
            raise ConfigurationError(f"{_EXCHANGES}: the library ccxt knows no exchange {name!r}; {hint}")
        if settings.dataset == "sim" and name not in SIMULATED and "urls" not in settings.ccxt_options.get(name, {}):
            raise ConfigurationError(
                f"{_EXCHANGES}: the simulator does not speak {name}, and simulated data never meets live data; "
                f"it speaks {', '.join(SIMULATED)}, and MARKETFLOW_CCXT_OPTIONS may give other urls"
            )
    idle = sorted(settings.ccxt_options.keys() - set(settings.ccxt_exchanges))
    if idle:
        raise ConfigurationError(f"MARKETFLOW_CCXT_OPTIONS: {', '.join(idle)} is not among {_EXCHANGES}")


def options(settings: Settings, name: str) -> dict[str, Any]:
    """What the class of an exchange is made with; the library merges it into what it knows."""
    simulated: dict[str, Any] = {}
    if settings.dataset == "sim" and name in SIMULATED:
        simulated = {"urls": {"api": {"public": settings.venue_urls[SIMULATED[name]]}}}
    return {**simulated, **settings.ccxt_options.get(name, {}), "enableRateLimit": True}


class CcxtExchange:
    """One exchange of the library, within its own rate limiter. Use it as a context."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.name = name
        self._client = getattr(library, name)(options(settings, name))

    async def __aenter__(self) -> CcxtExchange:
        """Nothing is asked yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close its connections."""
        await self._client.close()

    async def check_products(self, products: Sequence[str]) -> None:
        """Ask what is traded there, and refuse products that are not.

        Raises:
            ConfigurationError: the exchange has no such market or no public trades.
            CallError: it did not answer, or not in a way that the library understands.
        """
        if not self._client.has.get("fetchTrades"):
            raise ConfigurationError(f"{_EXCHANGES}: {self.name} has no public trades")
        try:
            markets = await self._client.load_markets()
        except library.BaseError as error:
            raise CallError(self.name, error) from error
        for product_id in products:
            symbol = symbol_of(product_id)
            if symbol not in markets:
                close = difflib.get_close_matches(symbol, [str(each) for each in markets], n=3)
                hint = f"; near to it: {', '.join(close)}" if close else ""
                raise ConfigurationError(f"MARKETFLOW_CCXT_PRODUCTS: {self.name} does not trade {symbol}{hint}")

    async def trades(self, product_id: str, since_ms: int | None, limit: int) -> Answer:
        """One call of fetch_trades, oldest first; the members that are published, as the library made them.

        Raises:
            CallError: it did not answer, or not in a way that the library understands.
        """
        try:
            found = await self._client.fetch_trades(symbol_of(product_id), since_ms, limit)
        except library.BaseError as error:
            raise CallError(self.name, error) from error
        return [{member: trade.get(member) for member in MEMBERS} for trade in found]
