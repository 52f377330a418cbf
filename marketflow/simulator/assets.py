"""The aggregator's prices: a factor model around the exchange's mids. Pure of clock, file and socket.

A coin that is traded against usd on the simulated exchange has the exchange's mid; a stable coin stays near its price;
a wrapped coin follows what it wraps; every other coin follows the market factor with its own beta and noise.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import exp, log, sqrt
from typing import NamedTuple

from marketflow.errors import ConfigurationError
from marketflow.simulator.listings import USD_PER_UNIT
from marketflow.simulator.randomness import stream
from marketflow.simulator.texts import SECOND_US
from marketflow.simulator.universe import Coin

HOUR_US = 3600 * SECOND_US
REFRESH_S = (20.0, 30.0)
SLOW_REFRESH_S = (45.0, 75.0)  # so that a poll every 30 s sometimes sees the same last_updated again
SLOW_SHARE = 0.15
YEAR_S = 365.25 * 86_400
FACTOR_VOLATILITY = 0.5 / sqrt(YEAR_S)


def price_text(value: float) -> str:
    """As the aggregator prints: whole from 10,000 up, else two to three decimals, below 1 six significant digits."""
    if value >= 10_000:
        return str(round(value))
    if value >= 1:
        return repr(round(value, 2 if value >= 10 else 3))
    return repr(float(f"{value:.6g}"))


class Day(NamedTuple):
    """The last 24 hours in the quotation's currency."""

    open: float
    high: float
    low: float


class Quotation(NamedTuple):
    """One fact of the aggregator: what (asset, currency) cost at last_updated. Prices are the page's own text."""

    coin: Coin
    vs_currency: str
    price: str
    market_cap: str
    rank: int
    supply: float
    day: Day
    last_updated_us: int

    @property
    def asset_id(self) -> str:
        """The aggregator's id, the key that symbols cannot be."""
        return self.coin.id


def converted(quotation: Quotation, currency: str) -> Quotation:
    """The same fact in the figures of `currency`; it keeps the name of its own."""
    rate = USD_PER_UNIT[quotation.vs_currency] / USD_PER_UNIT[currency]
    return quotation._replace(
        price=price_text(float(quotation.price) * rate),
        market_cap=str(round(int(quotation.market_cap) * rate)),
        day=Day(*(figure * rate for figure in quotation.day)),
    )


def other_currency(quotation: Quotation) -> Quotation:
    """A lie: the figures of eur under the quotation's own currency, or of usd where that is eur."""
    return converted(quotation, "usd" if quotation.vs_currency == "eur" else "eur")


class LastPrice(NamedTuple):
    """Where an asset stopped, in usd, as its truth says."""

    price: float
    last_updated_us: int


class _Asset:
    """One coin's state between two refreshes."""

    def __init__(self, coin: Coin, seed: int, last: LastPrice | None) -> None:
        self.coin = coin
        self.random = stream(seed, coin.id, last.last_updated_us if last else 0)
        self.start_price = float(coin.price)
        self.supply = coin.market_cap / self.start_price
        self.price = last.price if last else self.start_price
        self.last_updated_us = last.last_updated_us if last else 0
        self.factor: float | None = None
        traits = stream(seed, coin.id)
        self.beta = traits.uniform(0.7, 1.5)
        self.volatility = traits.uniform(0.5, 1.3) / sqrt(YEAR_S)
        self.hours: deque[tuple[int, Day]] = deque()

    def remember(self, now_us: int) -> Day:
        """Take the price into the hourly extremes and say what the last 24 hours were."""
        hour = now_us // HOUR_US
        if not self.hours:
            self._imagine_yesterday(hour)
        while self.hours[0][0] <= hour - 24:
            self.hours.popleft()
            if not self.hours:
                self._imagine_yesterday(hour)
        last_hour, day = self.hours[-1]
        if last_hour == hour:
            self.hours[-1] = hour, Day(day.open, max(day.high, self.price), min(day.low, self.price))
        else:
            self.hours.append((hour, Day(self.price, self.price, self.price)))
        days = [day for _, day in self.hours]
        return Day(days[0].open, max(day.high for day in days), min(day.low for day in days))

    def _imagine_yesterday(self, hour: int) -> None:
        """A market that has just begun still has a yesterday: walk back hour by hour from the present price."""
        step = 1e-4 if self.coin.kind == "stable" else self.volatility * 60
        price, walked = self.price, []
        for back in range(24):
            earlier = price * exp(step * self.random.gauss(0.0, 1.0))
            walked.append((hour - back, Day(earlier, max(price, earlier), min(price, earlier))))
            price = earlier
        self.hours.extend(reversed(walked))


class AssetMarket:
    """All coins in all currencies. `advance` makes facts; `publish` shows them, once their truth is safe."""

    def __init__(
        self,
        coins: Sequence[Coin],
        *,
        currencies: Sequence[str],
        seed: int,
        mid_of: Callable[[str], float | None],
        last: Mapping[str, LastPrice],
    ) -> None:
        """`mid_of` gives the exchange's usd mid of an asset id, or None; `last` continues an earlier market."""
        unknown = [currency for currency in currencies if currency not in USD_PER_UNIT]
        if unknown:
            raise ConfigurationError(
                f"the simulator quotes no {', '.join(unknown)}; it knows {', '.join(USD_PER_UNIT)}"
            )
        self.currencies = tuple(currencies)
        self.published: dict[tuple[str, str], Quotation] = {}
        self._mid_of = mid_of
        self._assets = {coin.id: _Asset(coin, seed, last.get(coin.id)) for coin in coins}
        self._random = stream(seed, "cadence", max((price.last_updated_us for price in last.values()), default=0))
        self._due: list[tuple[int, str]] = []
        self._factor = 0.0
        self._factor_us = 0

    def start(self, now_us: int) -> None:
        """Open, or open again after a pause. A coin without any price gets one at once, the others within a cadence."""
        self._due = []
        for asset in self._assets.values():
            known = asset.last_updated_us > 0
            delay_us = int(self._random.uniform(0, REFRESH_S[1]) * SECOND_US) if known else 0
            heapq.heappush(self._due, (max(now_us, asset.last_updated_us + 1000) + delay_us, asset.coin.id))
        self._factor_us = now_us

    def advance(self, until_us: int) -> list[Quotation]:
        """The facts that came due up to `until_us`, with their own times, in that order."""
        if not self._due or self._due[0][0] > until_us:
            return []
        self._move_factor(until_us)
        quotations: list[Quotation] = []
        while self._due and self._due[0][0] <= until_us:
            due_us, asset_id = heapq.heappop(self._due)
            asset = self._assets[asset_id]
            self._reprice(asset, due_us)
            quotations.extend(self._quote(asset))
            cadence = SLOW_REFRESH_S if self._random.random() < SLOW_SHARE else REFRESH_S
            heapq.heappush(self._due, (due_us + int(self._random.uniform(*cadence) * SECOND_US), asset_id))
        return quotations

    def publish(self, quotations: Sequence[Quotation]) -> None:
        """From now on pages show these."""
        for quotation in quotations:
            self.published[quotation.asset_id, quotation.vs_currency] = quotation

    def _move_factor(self, now_us: int) -> None:
        """The market factor is bitcoin's log price where the exchange trades it, else a walk of its own."""
        mid = self._mid_of("bitcoin")
        if mid is not None:
            self._factor = log(mid)
        else:
            elapsed_s = max(0, now_us - self._factor_us) / SECOND_US
            self._factor += FACTOR_VOLATILITY * sqrt(elapsed_s) * self._random.gauss(0.0, 1.0)
        self._factor_us = now_us

    def _reprice(self, asset: _Asset, now_us: int) -> None:
        kind, mid, noise = asset.coin.kind, self._mid_of(asset.coin.id), asset.random.gauss(0.0, 1.0)
        moved = self._factor - asset.factor if asset.factor is not None else 0.0
        elapsed_s = min(300.0, (now_us - asset.last_updated_us) / SECOND_US) if asset.last_updated_us else 0.0
        if mid is not None:
            asset.price = mid
        elif kind == "stable":
            asset.price = asset.start_price + 0.8 * (asset.price - asset.start_price) + 4e-5 * noise
        elif kind.startswith("follows:"):
            followed = self._assets[kind.removeprefix("follows:")]
            followed_price = self._mid_of(followed.coin.id) or followed.price
            asset.price = followed_price * asset.start_price / followed.start_price * (1 + 1e-5 * noise)
        else:
            asset.price *= exp(asset.beta * moved + asset.volatility * sqrt(elapsed_s) * noise)
        asset.factor = self._factor
        asset.last_updated_us = max(now_us, asset.last_updated_us + 1000) // 1000 * 1000

    def _quote(self, asset: _Asset) -> list[Quotation]:
        day = asset.remember(asset.last_updated_us)
        market_cap = asset.price * asset.supply
        rank = 1 + sum(other.price * other.supply > market_cap for other in self._assets.values())
        quotations = []
        for currency in self.currencies:
            unit = USD_PER_UNIT[currency]
            quotations.append(
                Quotation(
                    coin=asset.coin,
                    vs_currency=currency,
                    price=price_text(asset.price / unit),
                    market_cap=str(round(market_cap / unit)),
                    rank=rank,
                    supply=asset.supply,
                    day=Day(*(figure / unit for figure in day)),
                    last_updated_us=asset.last_updated_us,
                )
            )
        return quotations
