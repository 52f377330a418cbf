"""How far a market has been read whose trades are polled by time: what to ask next, and what was lost in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# asked again at each poll: what an exchange shows late has this long to appear
OVERLAP_MS = 5_000


@dataclass(frozen=True, slots=True)
class Loose:
    """Between these two times trades are missing, or may be: a poll's oldest trade is newer than the last one seen."""

    after_ms: int
    before_ms: int
    full: bool


class TradeCursor:
    """One market's. Times are milliseconds; None where a trade has none.

    `newest_ms` is that of the last trade that was seen before, None where none was.
    """

    def __init__(self, limit: int, newest_ms: int | None = None) -> None:
        self._limit = limit
        self.newest_ms = newest_ms

    @property
    def since_ms(self) -> int | None:
        """What a poll begins with; None, which is the newest there are, before anything was seen."""
        return None if self.newest_ms is None else self.newest_ms - OVERLAP_MS

    def loose(self, times_ms: Sequence[int | None]) -> Loose | None:
        """What a poll's first page, taken from `since_ms`, does not join on to.

        The last trade seen lies within what was asked for, so it has to be there again. Where even the oldest trade is
        newer, the exchange no longer tells those between: the page was too small for the pause before it.
        """
        known = [each for each in times_ms if each is not None]
        if self.newest_ms is None or not known or min(known) <= self.newest_ms:
            return None
        return Loose(self.newest_ms, min(known), len(times_ms) >= self._limit)

    def took(self, since_ms: int | None, times_ms: Sequence[int | None]) -> int | None:
        """Take a page that was asked from `since_ms`; from where the next one is to be asked at once, None for none.

        A full page may end before now, on exchanges that answer from `since_ms` upward. A page full of one millisecond
        cannot be gone on from: the rest of that millisecond is skipped.
        """
        known = [each for each in times_ms if each is not None]
        if not known:
            return None
        newest = max(known)
        self.newest_ms = newest if self.newest_ms is None else max(newest, self.newest_ms)
        if since_ms is None or len(times_ms) < self._limit:
            return None
        return newest if newest > since_ms else since_ms + 1
