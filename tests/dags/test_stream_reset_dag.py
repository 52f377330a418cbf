"""Dag stream_reset: who approves of it, in what order it works, and that a reset that did not happen is no success."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from marketflow.services.desired import Desired
from marketflow_airflow import reset, services
from marketflow_airflow.defaults import START
from marketflow_airflow.notify import KnownFailure
from marketflow_airflow.reset import CheckpointReset, ResetApproval, StreamStart, approver
from marketflow_airflow.spark import SPARK_POOL, SparkJobOperator


def context(*, approved_by=None, conf=None, states=None, **results):
    run = SimpleNamespace(conf=conf or {}, dag_id="stream_reset", run_id="manual__1")
    ti = SimpleNamespace(
        xcom_pull=lambda task_ids: results.get(task_ids),
        get_task_states=lambda dag_id, task_ids, run_ids: {run.run_id: states},
    )
    return {"params": {"approved_by": approved_by, "topics": []}, "dag_run": run, "ti": ti}


def approval():
    return ResetApproval(task_id="approve", subject="?")


def test_the_plan_comes_first_and_nothing_is_stopped_before_the_approval(dags):
    dag = dags["stream_reset"]
    order = {task.task_id: task.downstream_task_ids for task in dag.tasks}
    assert order == {
        "plan": {"approve"},
        "approve": {"reset"},
        "reset": {"start"},
        "start": set(),
    }
    # a teardown of no setup: it runs whatever came of the others, also where the whole run is marked
    start = dag.get_task("start")
    assert (start.is_teardown, start.on_failure_fail_dagrun) == (True, True)
    assert start.trigger_rule == "all_done_setup_success"
    assert not any(task.is_setup for task in dag.tasks)
    assert dag.timetable.can_be_scheduled is False


def test_who_is_asked_reads_where_each_query_would_begin_in_plain_words(dags):
    plan = [
        {"query": "bronze_trades_raw", "topic": "sim.crypto.trades.raw", "offsets": {"0": 120, "1": 7}, "unread": 9},
        {"query": "bronze_ticker_raw", "topic": "sim.crypto.ticker.raw", "offsets": {"0": 5}, "unread": 0},
    ]
    task = dags["stream_reset"].get_task("approve").prepare_for_execution()
    task.render_template_fields(context(plan=plan) | {"dag": dags["stream_reset"]})
    assert task.body.splitlines()[2:] == [
        "- **bronze_trades_raw**: 9 records of sim.crypto.trades.raw, from offset 120 of partition 0, 7 of partition 1",
        "- **bronze_ticker_raw**: 0 records of sim.crypto.ticker.raw, from offset 5 of partition 0",
    ]


def test_a_name_in_the_form_is_the_approval():
    said = approval().execute(context(approved_by=" ada "))
    assert approver(context(approve=said)) == "ada"
    assert approver(context(approved_by="eve", approve=said)) == "eve"


def test_dags_test_without_a_name_fails_at_once_and_says_what_to_give(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["airflow", "dags", "test", "stream_reset"])
    with pytest.raises(AirflowFailException, match="approved_by"):
        approval().execute(context())
    assert approval().execute(context(approved_by="ada"))


def test_a_key_that_the_form_has_not_is_refused():
    with pytest.raises(AirflowFailException, match="no aproved_by"):
        approval().execute(context(conf={"aproved_by": "ada"}))


def answered(option):
    """What the trigger says once ada has answered in the UI."""
    user = {"id": "1", "name": "ada"}
    return {"chosen_options": [option], "params_input": {}, "responded_by_user": user, "responded_at": START}


def test_who_presses_approve_is_the_approver():
    said = approval().execute_complete(context(), answered("Approve"))
    assert approver(context(approve=said)) == "ada"


def test_who_rejects_ends_the_run_for_good():
    with pytest.raises(KnownFailure, match="rejected: nothing was changed"):
        approval().execute_complete(context(), answered("Reject"))


@pytest.fixture
def asked(monkeypatch):
    """What was done, in order: rounds and jobs. A round in `broken` fails, and so does the job with what is there."""
    done, broken = [], {}

    def play(what):
        done.append(what)
        if what in broken:
            raise broken[what]

    monkeypatch.setattr(services.ServicesOperator, "round", lambda self, _, wish: play(wish.action))
    monkeypatch.setattr(SparkJobOperator, "execute", lambda self, _: play("job"))
    return SimpleNamespace(done=done, broken=broken)


def reset_task(dags, given):
    task = dags["stream_reset"].get_task("reset").prepare_for_execution()
    assert (type(task), task.pool, task.retry_only_when_busy) == (CheckpointReset, SPARK_POOL, True)
    return CheckpointReset.execute.__wrapped__(task, given)


def test_the_stream_stands_still_while_the_task_has_the_slot_and_no_longer(dags, asked):
    reset_task(dags, context(approved_by="ada"))
    assert asked.done == ["stop", "job", "start"]


def test_a_job_that_fails_is_said_and_the_stream_is_started_all_the_same(dags, asked):
    asked.broken["job"] = AirflowFailException("Kafka has forgotten offset 7")
    with pytest.raises(AirflowFailException, match=r"^Kafka has forgotten offset 7$"):
        reset_task(dags, context(approved_by="ada"))
    assert asked.done == ["stop", "job", "start"]
    asked.broken["job"] = AirflowException("another process holds the lock")
    asked.broken["start"] = AirflowException("market-stream: its checkpoint is gone")
    with pytest.raises(AirflowException, match=r"the lock\. And the stream does not start: .*gone") as caught:
        reset_task(dags, context(approved_by="ada"))
    assert type(caught.value) is AirflowException  # it is tried again


def test_a_stream_that_cannot_be_stopped_is_not_reset(dags, asked):
    asked.broken["stop"] = AirflowException("no supervisord")
    with pytest.raises(AirflowException, match="no supervisord"):
        reset_task(dags, context(approved_by="ada"))
    assert asked.done == ["stop"]


@pytest.mark.parametrize("error", [AirflowTaskTimeout("Timeout, PID: 1"), OSError("no space left"), KeyError("x")])
def test_a_reset_that_is_cut_short_is_ended_started_after_and_not_tried_again(dags, asked, monkeypatch, error):
    ended = []
    monkeypatch.setattr(SparkJobOperator, "on_kill", lambda self: ended.append(self.task_id))
    asked.broken["job"] = error
    with pytest.raises(AirflowFailException, match=re.escape(str(error))):
        reset_task(dags, context(approved_by="ada"))
    assert (asked.done, ended) == (["stop", "job", "start"], ["reset"])


def test_a_reset_after_which_the_stream_does_not_start_is_not_done_again(dags, asked):
    asked.broken["start"] = AirflowException("market-stream: it is backoff")
    with pytest.raises(AirflowFailException, match="the checkpoint was reset, and the stream does not start: market-"):
        reset_task(dags, context(approved_by="ada"))
    assert asked.done == ["stop", "job", "start"]


def test_a_task_that_is_ended_while_the_stream_stops_begins_no_job(dags, asked, monkeypatch):
    task = dags["stream_reset"].get_task("reset").prepare_for_execution()
    play = services.ServicesOperator.round

    def ended(self, given, wish):
        if wish.action == "stop":
            task.on_kill()
        play(self, given, wish)

    monkeypatch.setattr(services.ServicesOperator, "round", ended)
    with pytest.raises(AirflowFailException, match="nothing was changed"):
        CheckpointReset.execute.__wrapped__(task, context(approved_by="ada"))
    assert asked.done == ["stop", "start"]


@pytest.mark.parametrize("became", [None, "failed", "upstream_failed", "up_for_retry"])
def test_no_run_is_well_without_a_reset_and_one_that_was_killed_is_told_of(asked, monkeypatch, became):
    told = []
    monkeypatch.setattr(reset, "tell", lambda key, text, given: told.append((key, text)))
    desire(monkeypatch, None)
    with pytest.raises(KnownFailure, match=f"task reset is {became}"):  # of which nobody is told
        StreamStart(task_id="start").execute(context(approved_by="ada", states={"reset": became}))
    assert asked.done == []
    # by the key by which it tells of itself: once
    assert told == ([("task:stream_reset.reset", "stream_reset.reset failed")] if became == "failed" else [])


@pytest.mark.parametrize(
    ("desired", "set_by", "done"),
    [
        ("stopped", "ada, stream_reset manual__1", ["start"]),
        ("running", "ada, stream_reset manual__1", []),
        # a person's own stop, and another run's
        ("stopped", "ada", []),
        ("stopped", "ada, stream_reset manual__0", []),
    ],
)
def test_a_stream_that_the_run_left_standing_is_started_and_what_a_person_stopped_is_not(
    asked, monkeypatch, desired, set_by, done
):
    desire(monkeypatch, Desired("market-stream", desired, set_by, START))
    StreamStart(task_id="start").execute(context(approved_by="ada", states={"reset": "success"}))
    assert asked.done == done


def desire(monkeypatch, row):
    """What ops.service_desired has of the stream."""
    monkeypatch.setattr(services.ServicesHook, "get_settings", lambda self: None)
    monkeypatch.setattr("marketflow.warehouse.connection.connect", lambda _: nullcontext())
    monkeypatch.setattr(
        "marketflow.services.desired.read_desired", lambda _: {"market-stream": row} if row is not None else {}
    )
