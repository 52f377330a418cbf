"""Which producer hangs: its process lives and its own work stands still. And whether the simulated exchange does.

A venue that says nothing is no hanging: the feed's own watchdog connects again, a poller that was told to wait waits,
and a restart would only ask the venue once more.
"""

from __future__ import annotations

from collections.abc import Mapping

# it answers before it does anything else; ccxt's library takes some seconds to be imported
STARTED_WITHIN_S = 60.0
# its loop runs several times a second
LOOP_QUIET_S = 60.0
# a call is given up after 20 s and an attempt to connect after 10 s
OVERDUE_S = 120.0


def why_hung(said: Mapping[str, float] | None, uptime_s: float) -> str | None:
    """The sentence that says so, or None. `said` are its metrics, None where it does not answer."""
    if said is None:
        if uptime_s < STARTED_WITHIN_S:
            return None
        return f"It has run for {uptime_s:.0f} s and does not answer on its metrics port."
    quiet_s, overdue_s = (
        said.get(f"marketflow_{name}_seconds", 0.0) for name in ("loop_quiet", "overdue")
    )  # an older producer says neither
    if quiet_s > LOOP_QUIET_S:
        return f"It answers on its metrics port, but its loop has not run for {quiet_s:.0f} s."
    if overdue_s > OVERDUE_S:
        return f"Its next step by its own plan is {overdue_s:.0f} s overdue."
    return None


def why_simulator_hung(answers: bool, uptime_s: float) -> str | None:
    """The same of the simulated exchange, which answers on its own control path within milliseconds."""
    if answers or uptime_s < STARTED_WITHIN_S:
        return None
    return f"It has run for {uptime_s:.0f} s and does not answer on its REST port."
