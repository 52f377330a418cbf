"""What history somebody asks for, checked: a wish that cannot be met is refused in a sentence that says what can."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from marketflow.contracts.products import PRODUCTS
from marketflow.contracts.silver import CANDLE_INTERVALS_S
from marketflow.errors import ConfigurationError
from marketflow.settings import Settings
from marketflow.venues import cryptocompare
from marketflow.venues.history_candles import CANDLE_HISTORIES, CandleHistory
from marketflow.venues.history_times import TIME_WALKS
from marketflow.venues.time_walk import Span
from marketflow.venues.validation import EPOCH
from marketflow.warehouse.backfills import Key

TRADES_WISH = "trades"
CANDLES_PREFIX = "candles:"
MICROSECOND = timedelta(microseconds=1)


def moment(name: str, text: str, say: Callable[[str], None]) -> datetime:
    """A time of ISO 8601 in UTC; one without a zone is taken as UTC, and that is said.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{name} {text!r} is no time, as 2026-11-20T05:00Z is") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
        say(f"{name} {text} has no zone: taken as {at.isoformat()}")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise ConfigurationError(f"{name} {text!r} is before the year 1 or after 9999 in UTC") from None


@dataclass(frozen=True, slots=True)
class Wish:
    """[start, end) of a product's trades or candles at a venue. `what` is `trades` or `candles:<interval>`."""

    venue: str
    product_id: str
    what: str
    start: datetime
    end: datetime

    @property
    def key(self) -> Key:
        """Its row of ops.backfill."""
        return Key(self.venue, self.product_id, self.what, self.start, self.end)

    @property
    def interval(self) -> str | None:
        """That of the candles; None for trades."""
        return self.what.removeprefix(CANDLES_PREFIX) if self.what.startswith(CANDLES_PREFIX) else None

    def __str__(self) -> str:
        """`binance BTC-USDT trades 2026-11-20 05:00:00 to 2026-11-20 06:00:00 UTC`."""
        start, end = (f"{at:%Y-%m-%d %H:%M:%S}" for at in (self.start, self.end))
        return f"{self.venue} {self.product_id} {self.what} {start} to {end} UTC"

    def span(self, now: datetime) -> Span:
        """For a walk."""
        start, end, asked = ((at - EPOCH) // MICROSECOND for at in (self.start, self.end, now))
        return Span(self.product_id, start, end, asked)

    def check(self, settings: Settings, now: datetime) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigurationError: dataset, venue, product, interval or times are wrong; with what is known.
        """
        if settings.dataset == "replay":
            raise ConfigurationError(
                "MARKETFLOW_DATASET: replay is what its captures hold; nothing is backfilled there"
            )
        if self.interval is None and self.what != TRADES_WISH:
            raise ConfigurationError(f"{self.what!r} is not to be had: trades, or candles:1m and the like")
        known: Collection[str] = TIME_WALKS if self.interval is None else CANDLE_HISTORIES
        if self.venue not in known:
            kind = "trades" if self.interval is None else "candles"
            raise ConfigurationError(f"venue {self.venue!r} has no history of {kind}; known: {', '.join(known)}")
        if self.product_id not in PRODUCTS or self.venue not in PRODUCTS[self.product_id].names:
            there = ", ".join(name for name, product in PRODUCTS.items() if self.venue in product.names)
            raise ConfigurationError(f"product {self.product_id!r} is none of {self.venue}; known: {there}")
        self._check_times(now)
        if self.interval is not None:
            self._check_candles(settings, CANDLE_HISTORIES[self.venue], now)

    def _check_times(self, now: datetime) -> None:
        if self.end <= self.start:
            raise ConfigurationError(f"the end {self.end.isoformat()} is not after the start {self.start.isoformat()}")
        for name, at in (("start", self.start), ("end", self.end)):
            if at > now:
                raise ConfigurationError(
                    f"the {name} {at.isoformat()} is in the future: it is {now.isoformat(timespec='seconds')}, and "
                    "only what is over is history"
                )

    def _check_candles(self, settings: Settings, history: CandleHistory, now: datetime) -> None:
        interval = self.interval or ""
        if interval not in history.intervals:
            raise ConfigurationError(
                f"{self.venue} has no candles of {interval!r}; known: {', '.join(history.intervals)}"
            )
        step = timedelta(seconds=CANDLE_INTERVALS_S[interval])
        if EPOCH - (EPOCH - self.start) // step * step + step > self.end:
            raise ConfigurationError(f"no whole candle of {interval} lies between start and end")
        if history.days is not None and self.start < now - timedelta(days=history.days):
            raise ConfigurationError(
                f"{self.venue} keeps candles of {interval} for {history.days} days: nothing before "
                f"{(now - timedelta(days=history.days)).isoformat(timespec='seconds')} can be had from it"
            )
        if history.venue == cryptocompare.VENUE and settings.dataset == "live" and not settings.cryptocompare_api_key:
            raise ConfigurationError("MARKETFLOW_CRYPTOCOMPARE_API_KEY: cryptocompare answers no call without a key")
