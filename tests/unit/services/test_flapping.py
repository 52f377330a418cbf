"""Which service flaps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from marketflow.services.backend import ServiceState, ServiceStatus
from marketflow.services.flapping import why_flapping

NOW = datetime(2026, 7, 7, 12, 0, tzinfo=UTC)


def crashed(*minutes_ago: float, state: ServiceState = "running", detail: str = "") -> ServiceStatus:
    times = tuple(NOW - timedelta(minutes=minutes) for minutes in minutes_ago)
    return ServiceStatus("a", state, crashes=times, detail=detail)


def test_three_crashes_in_ten_minutes_flap_until_five_minutes_after_the_last_one() -> None:
    assert why_flapping(crashed(3, 2), NOW) is None
    assert why_flapping(crashed(11, 3, 2), NOW) is None
    assert why_flapping(crashed(9, 8, 5), NOW) is None
    assert why_flapping(crashed(9, 8, 4.9), NOW) == "It crashed 3 times in 10 minutes. It is running."
    paused = crashed(2, 1.5, 1, 0.5, state="backoff", detail="exited with 2; next start in 8 s")
    assert why_flapping(paused, NOW) == (
        "It crashed 4 times in 10 minutes. It is backoff: exited with 2; next start in 8 s."
    )


def test_what_was_stopped_does_not_flap() -> None:
    assert why_flapping(crashed(3, 2, 1, state="stopped"), NOW) is None
