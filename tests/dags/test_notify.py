"""Somebody is told, over real HTTP, once, and told when it is over; whatever is broken, nothing fails."""

from __future__ import annotations

import asyncio
import logging
import sys
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from marketflow.errors import QualityError
from marketflow_airflow import notify
from marketflow_airflow.defaults import DEFAULT_ARGS
from marketflow_airflow.gold import deadline
from marketflow_airflow.service_alerts import tell_of_services
from marketflow_airflow.service_round import Condition
from tests.receiver import receiver

CONTEXT = {
    "dag_run": SimpleNamespace(dag_id="gold_bars", run_id="scheduled__1"),
    "ti": SimpleNamespace(task_id="rewrite_hours"),
    "task": SimpleNamespace(owner="market-data"),
    "exception": ValueError("no rows"),
}


@pytest.fixture
def home(monkeypatch, tmp_path):
    """A home in which nothing was ever started: alerts are remembered in its file."""
    monkeypatch.setenv("MARKETFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("MARKETFLOW_ALERT_URL", raising=False)
    notify.FAILURES.clear()
    return tmp_path


@pytest.fixture
def webhook(monkeypatch, home):
    """A real address, which is the one alerts go to."""
    with receiver() as listening:
        monkeypatch.setenv("MARKETFLOW_ALERT_URL", listening.url)
        yield listening


def test_a_failed_task_is_posted_once_with_what_failed_and_what_to_run_and_once_more_when_it_is_well(webhook):
    failed = notify.AlertNotifier("gold_bars.rewrite_hours failed")
    for _ in range(3):
        failed.notify(CONTEXT)
    notify.RecoveryNotifier().notify(CONTEXT)
    notify.RecoveryNotifier().notify(CONTEXT)
    (kind, first), (_, last) = webhook.arrived
    assert kind == "application/json"
    names = ("dag", "run", "task", "exception", "key", "status", "command", "owner")
    assert {name: first[name] for name in names} == {
        "dag": "gold_bars",
        "run": "scheduled__1",
        "task": "rewrite_hours",
        "exception": "no rows",
        "key": "task:gold_bars.rewrite_hours",
        "status": "firing",
        "command": "scripts/airflow dags list-runs gold_bars",
        "owner": "market-data",
    }
    assert first["text"].splitlines()[:2] == ["gold_bars.rewrite_hours failed", "no rows"]
    assert (last["status"], last["task"]) == ("resolved", "rewrite_hours")
    assert last["lasted_s"] >= 0


def test_a_refused_publication_is_posted_with_the_check_and_the_command_that_mends_it(webhook):
    def refused(told):
        error = AirflowFailException("gold.bars was not published")
        error.__cause__ = QualityError("…", checks=("a",), cause="high below low", command="do this", told=told)
        return CONTEXT | {"exception": error}

    notify.AlertNotifier("publish_bars.publish failed").notify(refused(told=False))
    assert webhook.said("cause", "command") == [("high below low", "do this")]
    # Dag quality has told of each check itself
    notify.AlertNotifier("quality.checks failed").notify(refused(told=True) | {"ti": SimpleNamespace(task_id="checks")})
    assert len(webhook.bodies) == 1


def test_nobody_is_told_of_what_a_person_decided_nor_of_a_run_that_somebody_tries(webhook, monkeypatch):
    failed = notify.AlertNotifier("stream_reset.approve failed")
    failed.notify(CONTEXT | {"exception": notify.KnownFailure("rejected: nothing was changed")})
    assert webhook.bodies == []
    failed.notify(CONTEXT)
    with monkeypatch.context() as trial:
        trial.setattr(sys, "argv", ["airflow", "dags", "test", "gold_bars"])
        failed.notify(CONTEXT | {"ti": SimpleNamespace(task_id="another")})
        notify.RecoveryNotifier().notify(CONTEXT)
        notify.deadline_met(CONTEXT)
    assert webhook.said("key", "status") == [("task:gold_bars.rewrite_hours", "firing")]


def test_the_triggerer_may_post_too(webhook):
    asyncio.run(notify.AlertNotifier("late").async_notify(CONTEXT))
    asyncio.run(notify.RecoveryNotifier().async_notify(CONTEXT))
    assert webhook.said("status") == [("firing",), ("resolved",)]


def test_a_missed_deadline_is_posted_by_what_the_dag_declares_and_ends_with_a_run_that_succeeds(webhook):
    alert = deadline("gold_bars: the hour's bars are late")
    assert alert.callback.path == "marketflow_airflow.notify.deadline_missed"
    # in the triggerer the context is a mapping of plain values
    context = {"dag_run": {"dag_id": "gold_bars", "run_id": "scheduled__1"}}
    said = asyncio.run(notify.deadline_missed(**alert.callback.kwargs, context=context))
    assert said == "alert deadline:gold_bars: sent, kept in file"
    # a backfill's runs are all queued at its beginning
    backfilled = {"dag_run": {"dag_id": "gold_bars", "run_id": "backfill__1", "run_type": "backfill"}}
    assert "takes its time" in asyncio.run(notify.deadline_missed(text="late", context=backfilled))
    # nor does one that succeeds say anything of the run that is late
    notify.deadline_met(backfilled)
    assert webhook.said("status") == [("firing",)]
    notify.deadline_met(CONTEXT)
    assert webhook.said("key", "status", "dag") == [
        ("deadline:gold_bars", "firing", "gold_bars"),
        ("deadline:gold_bars", "resolved", "gold_bars"),
    ]


def test_a_service_is_told_of_from_the_round_that_sees_it_to_the_one_that_does_not(webhook):
    silent = Condition("producer-coinbase", "silent", "No message has arrived for 90 s, expected within 60 s.")
    tell_of_services([silent], ["market-stream"])
    tell_of_services([silent], [])
    tell_of_services([], ["producer-coinbase", "market-stream"])
    assert webhook.said("text", "status")[0] == (
        "producer-coinbase is silent\nNo message has arrived for 90 s, expected within 60 s.\nRun: marketflow sources",
        "firing",
    )
    assert webhook.said("key", "status")[1:] == [("service:producer-coinbase", "resolved")]


@pytest.mark.usefixtures("home")
def test_where_nobody_is_to_be_told_the_log_says_so_and_nothing_fails(caplog):
    with caplog.at_level(logging.WARNING):
        notify.AlertNotifier("gold_bars failed").notify(CONTEXT)
    assert (
        "nobody was told: alert task:gold_bars.rewrite_hours: not sent (MARKETFLOW_ALERT_URL is not set)" in caplog.text
    )
    assert "not sent (MARKETFLOW_ALERT_URL is not set)" in asyncio.run(notify.deadline_missed(text="late"))


def test_a_target_that_is_broken_is_said_in_the_log_and_fails_nothing(webhook, caplog):
    webhook.status = 500
    with caplog.at_level(logging.WARNING):
        notify.AlertNotifier("gold_bars failed").notify(CONTEXT)
    assert "not sent (the webhook answered 500 Internal Server Error)" in caplog.text


def test_a_setting_that_is_wrong_is_said_in_the_log_counted_and_fails_nothing(home, monkeypatch, caplog):
    monkeypatch.setenv("MARKETFLOW_ALERT_URL", "file:///etc/passwd")
    with caplog.at_level(logging.ERROR):
        notify.AlertNotifier("gold_bars failed").notify(CONTEXT)
        notify.RecoveryNotifier().notify(CONTEXT)
    assert "MARKETFLOW_ALERT_URL: must be an address like https" in caplog.text
    assert len(notify.FAILURES) == 2


def test_a_job_that_was_ended_is_told_until_its_task_succeeds_and_of_other_tries_nobody_is_told(webhook):
    tried = notify.RetryNotifier("gold_bars.rewrite_hours: its job was ended, and is tried again")
    for error in (AirflowException("another process is writing the table"), None, notify.JobEnded("ended with -9")):
        tried.notify(CONTEXT | {"exception": error})
    notify.RecoveryNotifier().notify(CONTEXT)
    (_, first), (_, last) = webhook.arrived
    assert (first["key"], first["exception"]) == ("task:gold_bars.rewrite_hours", "ended with -9")
    assert first["title"] == "gold_bars.rewrite_hours: its job was ended, and is tried again"
    assert [first["status"], last["status"]] == ["firing", "resolved"]


def test_a_task_that_fails_for_good_after_its_job_was_ended_is_told_of_too(webhook):
    notify.RetryNotifier("its job was ended, and is tried again").notify(
        CONTEXT | {"exception": notify.JobEnded("ended with -9")}
    )
    for _ in range(2):
        notify.AlertNotifier("gold_bars.rewrite_hours failed").notify(CONTEXT)
    assert [(body["key"], body["title"]) for _, body in webhook.arrived] == [
        ("task:gold_bars.rewrite_hours", "its job was ended, and is tried again"),
        ("task:gold_bars.rewrite_hours", "gold_bars.rewrite_hours failed"),
    ]


def of_run(dag_id, run_type, partition_key=None, asked=None):
    run = SimpleNamespace(dag_id=dag_id, run_id="1", run_type=run_type, partition_key=partition_key)
    return CONTEXT | {"dag_run": run, "params": {"partition": asked} if asked else {}}


@pytest.mark.parametrize(
    ("one", "other", "over"),
    [
        # what is dirty is taken up by the next run of the schedule
        (("gold_bars", "scheduled", "2026-11-20T05:00:00"), ("gold_bars", "scheduled", "2026-11-20T06:00:00"), True),
        # not so an hour that somebody asked for, nor any hour of silver
        (("gold_bars", "backfill", "2026-11-20T05:00:00"), ("gold_bars", "scheduled", "2026-11-20T06:00:00"), False),
        (("gold_bars", "backfill", "2026-11-20T05:00:00"), ("gold_bars", "backfill", "2026-11-20T06:00:00"), False),
        (("gold_bars", "backfill", "2026-11-20T05:00:00"), ("gold_bars", "backfill", "2026-11-20T05:00:00"), True),
        (("silver", "scheduled", "2026-11-20T05:00:00"), ("silver", "scheduled", "2026-11-20T06:00:00"), False),
        (("silver", "scheduled", "2026-11-20T05:00:00"), ("silver", "backfill", "2026-11-20T05:00:00"), True),
        (("silver", "scheduled", "2026-11-20T05:00:00"), ("silver", "manual", None, "2026-11-20T05:40:00Z"), True),
        (("gold_daily", "manual", None, "2026-11-20T05:40:00Z"), ("gold_daily", "backfill", "2026-11-20"), True),
        (("publish_bars", "manual"), ("publish_bars", "asset_triggered"), True),
        # what is no time is named by nobody
        (("silver", "manual", None, "now"), ("silver", "manual"), True),
    ],
)
def test_a_failure_is_over_by_what_does_what_it_left_undone(webhook, one, other, over):
    notify.AlertNotifier("failed").notify(of_run(*one))
    notify.RecoveryNotifier().notify(of_run(*other))
    assert webhook.said("status") == [("firing",), ("resolved",)][: 1 + over]


@pytest.mark.parametrize("reason", ["timed_out", "task_failure", "all_tasks_deadlocked", None])
def test_of_a_run_that_failed_nobody_is_told_unless_its_time_was_over(webhook, monkeypatch, reason):
    notify.run_timed_out(CONTEXT | {"reason": reason})
    said = [("task:gold_bars.rewrite_hours", "gold_bars: a run took too long and was ended, at task rewrite_hours")]
    assert webhook.said("key", "title") == (said if reason == "timed_out" else [])
    notify.run_timed_out({"dag": "gold_bars", "reason": reason})  # which names no task
    monkeypatch.setattr(sys, "argv", ["airflow", "dags", "test", "gold_bars"])
    notify.run_timed_out(CONTEXT | {"reason": reason, "ti": SimpleNamespace(task_id="another")})
    assert len(webhook.bodies) == (reason == "timed_out")


def test_every_task_has_the_notifiers():
    (failed,), (well,) = DEFAULT_ARGS["on_failure_callback"], DEFAULT_ARGS["on_success_callback"]
    assert failed.message == "{{ dag.dag_id }}.{{ ti.task_id }} failed"
    assert isinstance(well, notify.RecoveryNotifier)
