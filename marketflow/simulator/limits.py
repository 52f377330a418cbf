"""How many calls a venue allows: by number in the last minute, or by weight in the running one."""

from __future__ import annotations

import time
from collections import deque

MINUTE_S = 60.0


class CallLimit:
    """Calls of the last minute; 0 allowed means no limit."""

    def __init__(self, calls_per_minute: int) -> None:
        self._allowed = calls_per_minute
        self._calls: deque[float] = deque()

    def retry_after_s(self) -> int:
        """0 where this call is allowed, and counted; else how long to wait."""
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - MINUTE_S:
            self._calls.popleft()
        if self._allowed and len(self._calls) >= self._allowed:
            return int(self._calls[0] + MINUTE_S - now) + 1
        self._calls.append(now)
        return 0


class WeightLimit:
    """Weights of the clock's running minute. A refused call weighs too, as at the venue."""

    def __init__(self, weight_per_minute: int) -> None:
        self._allowed = weight_per_minute
        self._minute = 0
        self.used = 0

    def retry_after_s(self, weight: int, now_s: float) -> int:
        """Count the call; 0 where it is allowed, else the seconds to the next minute."""
        minute = int(now_s // MINUTE_S)
        if minute != self._minute:
            self._minute, self.used = minute, 0
        self.used += weight
        return int((minute + 1) * MINUTE_S - now_s) + 1 if self.used > self._allowed else 0
