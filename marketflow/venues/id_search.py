"""Where in a venue's ids a moment lies, found by looking at few trades. No network, no clock.

Ids ascend with time. The search leaps down from the newest trade until one is older than the moment, then closes in:
first by the rate of the trades that were seen, past the guess on either side in turn, then by halves. Many small
leaps of a market that slept are so as few calls as one that never does: at most 40.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

# what a page brings beside the border anyway: nearer is not looked for
NEAR_IDS = 30
FIRST_LEAP = 10_000
LEAP_FACTOR = 8
GUESSES = 6
# how far past a guess is looked, as a part of what is left
_PAST = 64
# a venue's times may run against its ids by this much; more is a lie
TOLERANCE_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Point:
    """One trade that was looked at."""

    trade_id: int
    time_us: int


class IdSearch:
    """Looks for the first id at or after a time.

    After it, every trade with an id below `below` is older than the moment, every one from `above` on is not, and the
    two are near each other. `probe` is the id to look at next, None at the end.
    """

    def __init__(self, moment_us: int, newest: Point) -> None:
        self._moment_us = moment_us
        self.points = [newest]
        # ids below it are older; none below 1 exists
        self.below = 1
        self.above = newest.trade_id + 1
        # the trade that a venue told of when it was asked for the nearest one from `above` on
        self.first_above: int | None = None
        self._leap = FIRST_LEAP
        self._guesses = 0
        self._leaping = True
        self._rated = newest.trade_id <= FIRST_LEAP
        self.probe: int | None = None
        if newest.time_us >= moment_us:
            self.above = newest.trade_id
        else:
            self.below = newest.trade_id + 1
        self._next()

    def found(self, trade: Point | None) -> None:
        """What is at `probe`: the nearest trade at or below it, or None where there is none.

        Raises:
            ValueError: what came cannot be true beside what was seen before.
        """
        probe = self.probe
        assert probe is not None, "the search had ended"
        if trade is not None and trade.trade_id > probe:
            raise ValueError(f"trade {trade.trade_id} came, one at or below {probe} was asked for")
        if trade is not None:
            self._remember(trade)
        if trade is None or trade.time_us < self._moment_us:
            self.below = max(self.below, probe + 1)
            self._leaping = False
        else:
            self.above = min(self.above, trade.trade_id)
        self._next()

    def found_above(self, trade: Point | None) -> None:
        """The same where a venue tells the nearest trade at or above `probe`."""
        probe = self.probe
        assert probe is not None, "the search had ended"
        if trade is not None and trade.trade_id < probe:
            raise ValueError(f"trade {trade.trade_id} came, one at or above {probe} was asked for")
        if trade is not None:
            self._remember(trade)
        if trade is not None and trade.time_us < self._moment_us:
            self.below = max(self.below, trade.trade_id + 1)
            self._leaping = False
        else:
            if trade is not None and probe <= self.above:
                self.first_above = trade.trade_id
            self.above = min(self.above, probe)
        self._next()

    def _remember(self, trade: Point) -> None:
        at = bisect_left(self.points, trade.trade_id, key=lambda point: point.trade_id)
        if at < len(self.points) and self.points[at].trade_id == trade.trade_id:
            if self.points[at] != trade:
                raise ValueError(f"trade {trade.trade_id} has two times, {self.points[at].time_us} and {trade.time_us}")
            return
        older = at > 0 and self.points[at - 1].time_us > trade.time_us + TOLERANCE_US
        newer = at < len(self.points) and self.points[at].time_us < trade.time_us - TOLERANCE_US
        if older or newer:
            raise ValueError(f"the time of trade {trade.trade_id} runs against the ids of others")
        self.points.insert(at, trade)

    def _next(self) -> None:
        left = self.above - self.below
        if left <= NEAR_IDS and (self._rated or len(self.points) > 1):
            self.probe = None
        elif left <= NEAR_IDS:
            # both ends are known, and nothing of the rate yet, from which a plan is made
            self._rated = True
            self.probe = self.points[0].trade_id - FIRST_LEAP
        elif self._leaping:
            self.probe = max(self.below, self.above - self._leap)
            self._leap *= LEAP_FACTOR
        else:
            self.probe = self._guess(left)

    def _guess(self, left: int) -> int:
        """An id between the two ends, not at either."""
        guess = self.id_at(self._moment_us)
        if self._guesses >= GUESSES or guess is None:
            return self.below + left // 2
        self._guesses += 1
        past = max(NEAR_IDS // 2, left // _PAST)
        guess += past if self._guesses % 2 else -past
        return min(max(guess, self.below + left // _PAST), self.above - 1 - left // _PAST)

    def id_at(self, time_us: int) -> int | None:
        """About which id a moment has, by the rate between the trades seen around it; None where one alone was seen."""
        if len(self.points) < 2:
            return None
        at = bisect_left(self.points, time_us, key=lambda point: point.time_us)
        at = min(max(at, 1), len(self.points) - 1)
        older, newer = self.points[at - 1], self.points[at]
        span_us = max(1, newer.time_us - older.time_us)
        told = older.trade_id + (time_us - older.time_us) * (newer.trade_id - older.trade_id) // span_us
        return max(1, told)
