"""What a producer says of its own loop and of its next step."""

from __future__ import annotations

from marketflow.ingest.metrics import Metrics
from marketflow.ingest.pulse import Pulse
from marketflow.stack.hanging import why_hung


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_nothing_is_late_before_the_loop_began_and_while_the_next_step_is_not_due() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    clock.now_s += 500  # a producer that waits for Kafka before it begins
    assert (pulse.quiet_s(), pulse.overdue_s()) == (0, 0)
    pulse.due_in(3600)  # a venue's Retry-After
    clock.now_s += 3599
    assert pulse.overdue_s() == 0
    clock.now_s += 3
    assert pulse.overdue_s() == 2
    pulse.due_in(0)
    clock.now_s += 1
    assert pulse.overdue_s() == 1
    pulse.waits()
    assert pulse.overdue_s() == 0


def test_the_loops_age_grows_until_it_runs_again() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.beat()
    clock.now_s += 70
    assert pulse.quiet_s() == 70
    pulse.beat()
    assert pulse.quiet_s() == 0


def test_of_several_works_the_latest_counts() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.due_in(10, "ccxt_kraken")
    pulse.due_in(100, "ccxt_bitstamp")
    clock.now_s += 60
    assert pulse.overdue_s() == 50
    pulse.due_in(10, "ccxt_kraken")
    assert pulse.overdue_s() == 0


def test_a_scrape_tells_both_ages_as_they_are_when_it_is_answered() -> None:
    clock = Clock()
    metrics = Metrics("binance")
    metrics.pulse._clock = clock
    metrics.pulse.beat()
    metrics.pulse.due_in(5)
    clock.now_s += 65
    told = {
        name: metrics.registry.get_sample_value(name, {"venue": "binance"})
        for name in ("marketflow_loop_quiet_seconds", "marketflow_overdue_seconds")
    }
    assert told == {"marketflow_loop_quiet_seconds": 65, "marketflow_overdue_seconds": 60}


def test_hung_is_what_does_not_answer_stands_still_or_is_overdue_and_never_what_only_heard_nothing() -> None:
    assert why_hung(None, 59) is None
    assert why_hung(None, 61) == "It has run for 61 s and does not answer on its metrics port."
    fine = {"marketflow_loop_quiet_seconds": 0.5, "marketflow_overdue_seconds": 15.0}
    long_silent = {"marketflow_last_message_timestamp_seconds": 1.0, "marketflow_connected": 1.0}
    assert why_hung(fine | long_silent, 5000) is None
    assert why_hung(long_silent, 5000) is None  # a producer of before these metrics
    assert why_hung(fine | {"marketflow_loop_quiet_seconds": 61.0}, 5000) == (
        "It answers on its metrics port, but its loop has not run for 61 s."
    )
    assert why_hung(fine | {"marketflow_overdue_seconds": 121.0}, 5000) == (
        "Its next step by its own plan is 121 s overdue."
    )
