"""A service that crashes again and again: told apart from one that fell once, by what its wrapper wrote down."""

from __future__ import annotations

from datetime import datetime, timedelta

from marketflow.services.backend import ServiceStatus

# A machine that is short of memory for a moment costs a crash or two; a wrong key or a broken message costs three
# within seconds.
CRASHES = 3
WITHIN = timedelta(minutes=10)
# What crashes every few minutes runs well in between, so running is not enough.
CALM_AFTER = timedelta(minutes=5)


def why_flapping(status: ServiceStatus, now: datetime) -> str | None:
    """The sentence that says so, or None: it has not crashed that often, or has run for long enough since."""
    if status.state == "stopped":
        return None
    counted = [at for at in status.crashes if now - at <= WITHIN]
    if len(counted) < CRASHES or now - max(counted) >= CALM_AFTER:
        return None
    present = f"It is {status.state}{f': {status.detail}' if status.detail else ''}."
    return f"It crashed {len(counted)} times in {WITHIN.total_seconds() / 60:g} minutes. {present}"
