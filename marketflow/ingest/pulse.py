"""What a producer says of itself, so that one that hangs can be told from one whose venue is silent.

A process may live, answer on its metrics port (a thread of its own) and do nothing any more. So it says how long ago
its loop last ran, and how long its own next step is overdue: a poll, a connection, the end of a silent connection. A
venue that says nothing makes neither grow, and a poller that was asked to wait is due when it was told to be.

Times are of the monotonic clock, which does not run while a machine sleeps: nothing is overdue after a night.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Pulse:
    """Both ages of one producer. It is read by the thread that answers scrapes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._beat_s: float | None = None
        self._due_s: dict[str, float] = {}

    def beat(self) -> None:
        """The loop runs."""
        self._beat_s = self._clock()

    def due_in(self, seconds: float, of: str = "") -> None:
        """The next step of one of its works is due then; 0 where it is being done now."""
        self._due_s[of] = self._clock() + seconds

    def waits(self, of: str = "") -> None:
        """It waits for as long as it takes, for a Kafka that is away: nothing is due."""
        self._due_s.pop(of, None)

    def quiet_s(self) -> float:
        """Since the loop last ran; 0 before it began."""
        began = self._beat_s
        return 0.0 if began is None else self._clock() - began

    def overdue_s(self) -> float:
        """By how much the step that is latest is late; 0 where nothing is."""
        now = self._clock()
        return max((0.0, *(now - due_s for due_s in tuple(self._due_s.values()))))
