"""When the next poll is sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketflow.ingest.poller import next_poll_s


@given(st.integers(0, 1000), st.integers(1, 60), st.integers(0, 5000))
def test_missed_polls_are_left_out_and_the_grid_is_kept(due: int, interval: int, now: int) -> None:
    following = next_poll_s(due, interval, now)
    assert (following - due) % interval == 0
    assert following > due
    assert following > now or following == due + interval
    assert following - interval <= max(due, now)
