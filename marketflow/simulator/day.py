"""The rolling 24 hours of one product, minute by minute, for the figures that a ticker carries."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

MINUTE_US = 60_000_000
MINUTES_KEPT = 1440


class DaySummary(NamedTuple):
    """Integers: prices in the product's increment, volumes of 10^-8."""

    open: int
    high: int
    low: int
    volume: int


class _Minute:
    __slots__ = ("high", "low", "minute", "open", "volume")

    def __init__(self, minute: int, price: int) -> None:
        self.minute, self.open, self.high, self.low, self.volume = minute, price, price, price, 0


class DayWindow:
    """Trades of the last 1,440 minutes, the running one included."""

    def __init__(self) -> None:
        self._minutes: deque[_Minute] = deque()
        self._closed = (0, 0, 0)  # high, low, volume of all minutes but the running one

    def add(self, event_us: int, price: int, size: int) -> DaySummary:
        """Take one trade and say what the window is now. Times never go back."""
        minute = event_us // MINUTE_US
        if not self._minutes or self._minutes[-1].minute != minute:
            self._open_minute(minute, price)
        running = self._minutes[-1]
        running.high = max(running.high, price)
        running.low = min(running.low, price)
        running.volume += size
        high, low, volume = self._closed
        if len(self._minutes) == 1:
            high, low = running.high, running.low
        return DaySummary(
            self._minutes[0].open, max(high, running.high), min(low, running.low), volume + running.volume
        )

    def _open_minute(self, minute: int, price: int) -> None:
        minutes = self._minutes
        while minutes and minutes[0].minute <= minute - MINUTES_KEPT:
            minutes.popleft()
        if minutes:
            self._closed = (
                max(entry.high for entry in minutes),
                min(entry.low for entry in minutes),
                sum(entry.volume for entry in minutes),
            )
        else:
            self._closed = (price, price, 0)
        minutes.append(_Minute(minute, price))
