"""Dag stream_reset: who approves of it, in what order it works, and that a reset that did not happen is no success."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow import services
from marketflow_airflow.defaults import START
from marketflow_airflow.notify import KnownFailure
from marketflow_airflow.reset import CheckpointReset, ResetApproval, StreamStart, approver
from marketflow_airflow.spark import SPARK_POOL, SparkJobOperator


def context(*, approved_by=None, conf=None, **results):
    run = SimpleNamespace(conf=conf or {}, dag_id="stream_reset", run_id="manual__1")
    ti = SimpleNamespace(xcom_pull=lambda task_ids, key=None: results.get(key or task_ids))
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
    assert dag.get_task("start").trigger_rule == "all_done"
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


def test_who_rejects_ends_the_run_for_good():
    event = {"chosen_options": ["Reject"], "params_input": {}, "responded_by_user": {"id": "1", "name": "ada"}}
    with pytest.raises(KnownFailure, match="rejected: nothing was changed"):
        approval().execute_complete(context(), event | {"responded_at": START})


@pytest.fixture
def asked(monkeypatch):
    """What rounds were asked for, in their order with the jobs."""
    done = []
    monkeypatch.setattr(
        services.ServicesOperator,
        "round",
        lambda self, _, wish: done.append((wish.service, wish.action, wish.asked_by)),
    )
    monkeypatch.setattr(SparkJobOperator, "execute", lambda self, _: done.append(self.job))
    return done


def test_the_stream_is_stopped_by_the_task_that_has_the_slot(dags, asked):
    pushed = {}
    given = context(approved_by="ada")
    given["ti"].xcom_push = pushed.__setitem__
    task = dags["stream_reset"].get_task("reset")
    assert (type(task), task.pool) == (CheckpointReset, SPARK_POOL)
    CheckpointReset.execute.__wrapped__(task, given)
    assert asked == [("market-stream", "stop", "ada"), "stream_reset"]
    assert pushed == {"stopped": True}


def test_the_stream_is_started_again_whatever_became_of_the_reset_and_the_run_says_so(asked):
    start = StreamStart(task_id="start")
    with pytest.raises(KnownFailure, match="not stopped by this run"):  # why not has been told
        start.execute(context(approved_by="ada"))
    assert asked == []
    with pytest.raises(AirflowFailException, match="not reset"):
        start.execute(context(approved_by="ada", stopped=True))
    start.execute(context(approved_by="ada", stopped=True, reset=[{"query": "bronze_trades_raw"}]))
    assert asked == [("market-stream", "start", "ada")] * 2
