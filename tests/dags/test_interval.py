"""The window of a run is the same whoever starts the run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.interval import Window, resolve
from marketflow_airflow.notify import KnownFailure

NOW = datetime(2026, 11, 20, 7, 12, 30, tzinfo=UTC)
FIVE = datetime(2026, 11, 20, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


def context(*, key=None, asked=None, logical_date=None, run_after=NOW, conf=None):
    run = SimpleNamespace(partition_key=key, logical_date=logical_date, run_after=run_after, conf=conf)
    return {"dag_run": run, "params": {"partition": asked}}


def test_a_scheduled_or_backfilled_run_has_the_window_of_its_key():
    assert resolve(context(key="2026-11-20T05:00:00"), "hour", now=NOW) == Window(
        FIVE, FIVE + HOUR, "2026-11-20T05:00:00", "partition_key"
    )


def test_a_daily_key_is_a_whole_day():
    start = datetime(2026, 11, 19, tzinfo=UTC)
    assert resolve(context(key="2026-11-19"), "day", now=NOW) == Window(
        start, start + timedelta(days=1), "2026-11-19", "partition_key"
    )


@pytest.mark.parametrize(
    "asked", ["2026-11-20T05:00:00Z", "2026-11-20T05:59:59.999999Z", "2026-11-20T05:30:00", "2026-11-20T07:30:00+02:00"]
)
def test_a_person_may_ask_for_an_hour_by_any_time_in_it(asked):
    window = resolve(context(asked=asked), "hour", now=NOW)
    assert (window.start, window.key, window.source) == (FIVE, "2026-11-20T05:00:00", "params")


def test_dags_test_with_a_date_has_the_hour_of_that_date():
    window = resolve(context(logical_date=FIVE + timedelta(minutes=20)), "hour", now=NOW)
    assert (window.start, window.end, window.source) == (FIVE, FIVE + HOUR, "logical_date")


def test_an_hour_that_just_ended_is_taken_as_asked():
    seven = datetime(2026, 11, 20, 7, tzinfo=UTC)
    window = resolve(context(logical_date=seven - HOUR), "hour", now=seven)
    assert (window.end, window.source) == (seven, "logical_date")


def test_dags_test_without_a_date_does_not_take_the_open_hour():
    window = resolve(context(logical_date=NOW, run_after=NOW), "hour", now=NOW)
    assert (window.start, window.end, window.source) == (FIVE + HOUR, FIVE + 2 * HOUR, "last_complete")


def test_a_run_that_says_nothing_has_the_last_complete_window():
    assert resolve(context(), "hour", now=NOW).start == FIVE + HOUR
    assert resolve(context(), "day", now=NOW).start == datetime(2026, 11, 19, tzinfo=UTC)


def test_a_run_of_the_schedule_without_a_key_has_one_window_however_late_its_tasks_ask_or_it_is_cleared():
    at = datetime(2026, 11, 20, 2, 20, tzinfo=UTC)  # its tick, long before anybody asks
    window = resolve(context(logical_date=at, run_after=at), "hour")
    assert (window.end, window.source) == (datetime(2026, 11, 20, 2, tzinfo=UTC), "last_complete")


def test_a_run_by_hand_has_one_window_by_when_it_was_asked_for_also_in_a_later_try():
    at = datetime(2026, 11, 20, 5, 50, tzinfo=UTC)
    soon = resolve(context(logical_date=at, run_after=at + timedelta(seconds=2)), "hour")
    assert soon.start == FIVE - HOUR, "the form fills in the present: its hour is open"
    later = resolve(context(logical_date=at, run_after=at + timedelta(days=3)), "hour")
    assert (later.start, later.source) == (FIVE, "logical_date"), "somebody asks for a time in the past"


@pytest.mark.parametrize(
    ("asked", "grain", "words"),
    [
        (
            {"asked": "2030-01-01T00:00:00Z"},
            "hour",
            "2030-01-01T00:00:00 UTC is not over: ask again after 2030-01-01 01",
        ),
        ({"asked": "2026-11-20T07:00:00Z"}, "hour", "the hour of 2026-11-20T07:00:00 UTC is not over"),
        ({"key": "2026-11-20T07:00:00"}, "hour", "is not over"),
        ({"key": "2026-11-20"}, "day", "the day of 2026-11-20 UTC is not over: ask again after 2026-11-21"),
        ({"logical_date": NOW + 3 * HOUR}, "hour", "is in the future"),
    ],
)
def test_what_is_not_over_is_refused_at_once_and_holds_up_no_run_after_it(asked, grain, words):
    with pytest.raises(KnownFailure, match=words):
        resolve(context(**asked), grain, now=NOW)


def test_a_run_of_the_schedule_that_begins_on_the_second_by_a_slower_clock_is_not_refused():
    seven = datetime(2026, 11, 20, 7, tzinfo=UTC)
    window = resolve(context(key="2026-11-20T06:00:00"), "hour", now=seven - timedelta(seconds=40))
    assert window.end == seven


def test_the_key_wins_over_a_logical_date():
    window = resolve(context(key="2026-11-20T05:00:00", logical_date=NOW), "hour", now=NOW)
    assert (window.start, window.source) == (FIVE, "partition_key")


def test_a_form_that_agrees_with_the_key_is_no_contradiction():
    assert resolve(context(key="2026-11-20T05:00:00", asked="2026-11-20T05:30:00Z"), "hour", now=NOW).start == FIVE


def test_a_form_that_contradicts_the_key_is_refused():
    with pytest.raises(AirflowFailException, match=r"2026-11-20 04:00:00.*contradicts .*2026-11-20T05:00:00"):
        resolve(context(key="2026-11-20T05:00:00", asked="2026-11-20T04:30:00Z"), "hour", now=NOW)


@pytest.mark.parametrize(
    ("key", "grain"),
    [("2026-11-20T05:30:00", "hour"), ("2026-11-20", "hour"), ("yesterday", "hour"), ("2026-11-20T05:00:00", "day")],
)
def test_a_key_that_is_not_the_start_of_a_window_is_refused_with_an_example(key, grain):
    with pytest.raises(AirflowFailException, match=rf"{key}' does not name the start of a UTC {grain}, as '2026-11-20"):
        resolve(context(key=key), grain, now=NOW)


@pytest.mark.parametrize("conf", [{"partitions": "2026-11-20T05:00:00Z"}, {"partition": None, "hour": 5}])
def test_a_key_that_the_form_does_not_have_is_refused_and_not_tried_again(conf):
    with pytest.raises(AirflowFailException, match=r"form has no (partitions|hour); it has: partition\."):
        resolve(context(conf=conf), "hour", now=NOW)


def test_keys_of_the_form_are_taken():
    conf = {"partition": "2026-11-20T05:30:00Z"}
    assert resolve(context(asked=conf["partition"], conf=conf), "hour", now=NOW).start == FIVE


def test_a_partition_that_is_no_time_is_refused_and_not_tried_again():
    with pytest.raises(AirflowFailException, match="partition 'banana' is no time, as 2026-11-20T05:00:00Z is"):
        resolve(context(asked="banana"), "hour", now=NOW)
