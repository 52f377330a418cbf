"""A market polled by time: nothing is left out between two polls, and what an exchange no longer tells is said."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.ingest.trade_cursor import OVERLAP_MS, Loose, TradeCursor

LIMIT = 10


def from_since_on(times: list[int], since_ms: int | None) -> list[int]:
    """An exchange that answers from `since` upward, and with the newest without it."""
    return times[-LIMIT:] if since_ms is None else [each for each in times if each >= since_ms][:LIMIT]


def newest_alone(times: list[int], since_ms: int | None) -> list[int]:
    """An exchange that knows no `since`: the library filters its newest page."""
    return [each for each in times[-LIMIT:] if since_ms is None or each >= since_ms]


def polled(exchange, traded: list[int], at: list[int]) -> tuple[set[int], list[Loose]]:  # type: ignore[no-untyped-def]
    """Poll at these times; which were seen, and which losses were said."""
    cursor, seen, told = TradeCursor(LIMIT), set(), []
    for now in at:
        times, since = [each for each in traded if each <= now], cursor.since_ms
        page = exchange(times, since)
        loose = cursor.loose(page)
        if loose is not None:
            told.append(loose)
        while True:
            seen |= set(page)
            since = cursor.took(since, page)
            if since is None:
                break
            page = exchange(times, since)
    return seen, told


@given(seed=st.integers(0, 2**32), every=st.integers(200, 20_000))
def test_an_exchange_that_answers_from_since_upward_is_read_whole_however_seldom(seed: int, every: int) -> None:
    chance = random.Random(seed)
    traded = sorted({chance.randrange(100_000) for _ in range(300)})
    seen, told = polled(from_since_on, traded, list(range(1_000, 100_000 + every, every)))
    assert told == []
    assert seen == {each for each in traded if each >= min(seen)}


@given(seed=st.integers(0, 2**32), every=st.integers(200, 20_000))
def test_what_an_exchange_of_newest_pages_no_longer_tells_is_said_with_its_borders(seed: int, every: int) -> None:
    chance = random.Random(seed)
    traded = sorted({chance.randrange(100_000) for _ in range(300)})
    at = list(range(1_000, 100_000 + every, every))
    seen, told = polled(newest_alone, traded, at)
    missing = {each for each in traded if min(seen) <= each <= max(seen)} - seen
    inside = {each for each in missing if any(loose.after_ms < each < loose.before_ms for loose in told)}
    assert missing == inside


def test_a_poll_begins_a_little_before_the_last_trade_seen() -> None:
    cursor = TradeCursor(LIMIT)
    assert cursor.since_ms is None
    assert cursor.took(None, [50_000, 60_000]) is None
    assert cursor.since_ms == 60_000 - OVERLAP_MS


def test_a_page_that_begins_at_the_last_trade_seen_joins_on_to_it() -> None:
    cursor = TradeCursor(LIMIT)
    cursor.took(None, [60_000])
    assert cursor.loose([60_000, 61_000]) is None
    assert cursor.loose([60_001, 61_000]) == Loose(60_000, 60_001, full=False)
    assert cursor.loose([60_001 + n for n in range(LIMIT)]) == Loose(60_000, 60_001, full=True)


@pytest.mark.parametrize("page", [[], [None, None]])
def test_a_page_without_times_says_nothing_and_moves_nothing(page: list[int | None]) -> None:
    cursor = TradeCursor(LIMIT)
    cursor.took(None, [60_000])
    assert cursor.loose(page) is None
    assert cursor.took(cursor.since_ms, page) is None
    assert cursor.newest_ms == 60_000


def test_a_page_full_of_one_millisecond_does_not_hold_the_poll_for_ever() -> None:
    cursor = TradeCursor(LIMIT)
    cursor.took(None, [60_000])
    assert cursor.took(60_000, [60_000] * LIMIT) == 60_001
    assert cursor.took(60_001, [60_002]) is None
