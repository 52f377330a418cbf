"""The tracker says which trades are missing, no more and no less, judged by sets of ids."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketflow.ingest.gaps import Filled, Gap, GapTracker, holes_between
from marketflow.ingest.holes import ranges

VENUE, PRODUCT = "coinbase_exchange", "BTC-USD"


def gap(first: int, last: int, cause: str = "drop", product: str = PRODUCT) -> Gap:
    return Gap(VENUE, product, first, last, cause)  # type: ignore[arg-type]


def test_the_first_trade_of_a_product_misses_nothing() -> None:
    assert GapTracker(VENUE).trade(PRODUCT, 1_052_119_289) is None


def test_a_jump_is_a_hole_and_the_next_id_is_none() -> None:
    tracker = GapTracker(VENUE)
    assert [tracker.trade(PRODUCT, each) for each in (10, 11, 15, 16)] == [None, None, gap(12, 14), None]


def test_products_are_told_apart() -> None:
    tracker = GapTracker(VENUE)
    events = [tracker.trade(product, each) for product, each in (("A", 1), ("B", 7), ("A", 2), ("B", 9))]
    assert events == [None, None, None, gap(8, 8, product="B")]


def test_duplicates_and_ids_that_go_back_open_nothing() -> None:
    tracker = GapTracker(VENUE)
    assert [tracker.trade(PRODUCT, each) for each in (10, 10, 9, 3, 10, 11)] == [None] * 6


def test_the_first_jump_after_a_reconnect_has_its_cause_and_the_second_is_a_drop() -> None:
    tracker = GapTracker(VENUE)
    tracker.trade(PRODUCT, 10)
    tracker.disconnected("reconnect")
    assert tracker.trade(PRODUCT, 15) == gap(11, 14, "reconnect")
    assert tracker.trade(PRODUCT, 17) == gap(16, 16, "drop")


def test_backpressure_stays_the_cause_through_failed_reconnects() -> None:
    tracker = GapTracker(VENUE)
    tracker.trade(PRODUCT, 10)
    tracker.disconnected("backpressure")
    tracker.disconnected("reconnect")
    assert tracker.trade(PRODUCT, 12) == gap(11, 11, "backpressure")


def test_a_last_match_that_repeats_the_last_trade_proves_that_nothing_is_missing() -> None:
    tracker = GapTracker(VENUE)
    tracker.trade(PRODUCT, 10)
    tracker.disconnected("reconnect")
    assert tracker.trade(PRODUCT, 10) is None
    assert tracker.trade(PRODUCT, 12) == gap(11, 11, "drop")


def test_an_old_duplicate_proves_nothing() -> None:
    tracker = GapTracker(VENUE)
    tracker.trade(PRODUCT, 10)
    tracker.disconnected("reconnect")
    tracker.trade(PRODUCT, 4)
    assert tracker.trade(PRODUCT, 12) == gap(11, 11, "reconnect")


def test_what_a_killed_process_missed_is_killed() -> None:
    tracker = GapTracker(VENUE, {PRODUCT: 100})
    assert tracker.trade(PRODUCT, 105) == gap(101, 104, "killed")


def test_a_heartbeat_ahead_for_the_whole_grace_is_a_hole() -> None:
    tracker = GapTracker(VENUE, grace_s=5)
    tracker.trade(PRODUCT, 10)
    tracker.heartbeat(PRODUCT, 12, now_s=100)
    assert tracker.overdue(104.9) == []
    assert tracker.overdue(105) == [gap(11, 12)]
    assert tracker.overdue(200) == []
    assert tracker.trade(PRODUCT, 13) is None


def test_a_trade_that_comes_within_the_grace_is_no_hole() -> None:
    tracker = GapTracker(VENUE, grace_s=5)
    tracker.trade(PRODUCT, 10)
    tracker.heartbeat(PRODUCT, 11, now_s=100)
    tracker.trade(PRODUCT, 11)
    assert tracker.overdue(200) == []


def test_repeated_heartbeats_do_not_prolong_the_grace() -> None:
    tracker = GapTracker(VENUE, grace_s=5)
    tracker.trade(PRODUCT, 10)
    for second in range(6):
        tracker.heartbeat(PRODUCT, 11 + second, now_s=100 + second)
    assert tracker.overdue(105) == [gap(11, 11)]


def test_a_heartbeat_alone_begins_a_products_story() -> None:
    tracker = GapTracker(VENUE)
    tracker.heartbeat(PRODUCT, 20, now_s=0)
    assert tracker.overdue(100) == []
    assert tracker.trade(PRODUCT, 22) == gap(21, 21)


def test_a_disconnect_leaves_a_pending_heartbeat_to_the_next_connection() -> None:
    tracker = GapTracker(VENUE, grace_s=5)
    tracker.trade(PRODUCT, 10)
    tracker.heartbeat(PRODUCT, 12, now_s=100)
    tracker.disconnected("reconnect")
    assert tracker.overdue(200) == []
    assert tracker.trade(PRODUCT, 20) == gap(11, 19, "reconnect")


def test_late_trades_fill_their_hole_once_each() -> None:
    tracker = GapTracker(VENUE)
    tracker.trade(PRODUCT, 10)
    tracker.trade(PRODUCT, 15)
    events = [tracker.trade(PRODUCT, each) for each in (12, 12, 11, 14, 13, 13)]
    assert [event.trade_id if isinstance(event, Filled) else None for event in events] == [12, None, 11, 14, 13, None]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_holes_minus_fills_are_exactly_the_ids_that_never_came(arrivals: list[int]) -> None:
    tracker = GapTracker(VENUE)
    missing: set[int] = set()
    for each in arrivals:
        event = tracker.trade(PRODUCT, each)
        if isinstance(event, Gap):
            missing |= set(range(event.first_missing_id, event.last_missing_id + 1))
        elif isinstance(event, Filled):
            assert event.trade_id in missing
            missing.remove(event.trade_id)
    assert missing == set(range(arrivals[0], max(arrivals) + 1)) - set(arrivals)
    assert tracker.last_id(PRODUCT) == max(max(arrivals), arrivals[0])


@given(st.sets(st.integers(0, 50), min_size=1))
def test_ranges_and_holes_together_are_the_whole_span(ids: set[int]) -> None:
    present = {each for first, last in ranges(list(ids)) for each in range(first, last + 1)}
    absent = {each for first, last in holes_between(ids) for each in range(first, last + 1)}
    assert present == ids
    assert absent == set(range(min(ids), max(ids) + 1)) - ids
