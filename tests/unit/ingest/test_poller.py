"""When the next poll is sent, and what is told to whom."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.ingest.poller import key_headers, next_poll_s, retry_after_s
from marketflow.settings import Settings

NOW = datetime(2026, 7, 7, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "header", "expected"),
    [
        (429, "119", 119.0),  # what CoinGecko sends
        (429, None, 60.0),
        (503, "5", 5.0),
        (503, None, None),
        (200, "5", None),
        (429, "Tue, 07 Jul 2026 12:01:30 GMT", 90.0),
        (429, "Tue, 07 Jul 2026 11:00:00 GMT", 0.0),
        (429, "soon", 60.0),
        (429, "999999999", 3600.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(status: int, header: str | None, expected: float | None) -> None:
    assert retry_after_s(status, header, NOW) == expected


@given(st.integers(0, 1000), st.integers(1, 60), st.integers(0, 5000))
def test_missed_polls_are_left_out_and_the_grid_is_kept(due: int, interval: int, now: int) -> None:
    following = next_poll_s(due, interval, now)
    assert (following - due) % interval == 0
    assert following > due
    assert following > now or following == due + interval
    assert following - interval <= max(due, now)


@pytest.mark.parametrize(("plan", "name"), [("demo", "x-cg-demo-api-key"), ("pro", "x-cg-pro-api-key")])
def test_the_key_goes_into_the_header_of_its_plan(plan: str, name: str) -> None:
    settings = Settings(coingecko_plan=plan, coingecko_api_key="secret")  # type: ignore[arg-type]
    assert key_headers(settings) == {name: "secret"}


def test_a_keyless_poller_sends_no_key() -> None:
    assert key_headers(Settings()) == {}
