"""Somebody is told, over real HTTP; where nobody is to be told, nothing fails."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from marketflow.errors import ConfigurationError
from marketflow_airflow import notify
from marketflow_airflow.defaults import DEFAULT_ARGS
from marketflow_airflow.gold import deadline

CONTEXT = {
    "dag_run": SimpleNamespace(dag_id="gold_bars", run_id="scheduled__1"),
    "ti": SimpleNamespace(task_id="rewrite_hours"),
    "exception": ValueError("no rows"),
}


@pytest.fixture
def webhook(monkeypatch):
    """What arrived at a real address, which is the one alerts go to."""
    arrived = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            arrived.append((self.headers["content-type"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("MARKETFLOW_ALERT_URL", f"http://127.0.0.1:{server.server_port}/hook")
    yield arrived
    server.shutdown()
    server.server_close()


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    monkeypatch.setenv("MARKETFLOW_HOME", str(tmp_path))
    monkeypatch.delenv("MARKETFLOW_ALERT_URL", raising=False)


def test_a_failed_task_is_posted_with_what_failed(webhook):
    notify.AlertNotifier("gold_bars.rewrite_hours failed").notify(CONTEXT)
    expected = {
        "text": "gold_bars.rewrite_hours failed",
        "dag": "gold_bars",
        "run": "scheduled__1",
        "task": "rewrite_hours",
        "exception": "no rows",
    }
    assert webhook == [("application/json", expected)]


def test_the_triggerer_may_post_too(webhook):
    asyncio.run(notify.AlertNotifier("late").async_notify({}))
    assert [body["text"] for _, body in webhook] == ["late"]


def test_a_missed_deadline_is_posted_by_what_the_dag_declares(webhook):
    alert = deadline("gold_bars: the hour's bars are late")
    assert alert.callback.path == "marketflow_airflow.notify.deadline_missed"
    # in the triggerer the context is a mapping of plain values
    context = {"dag_run": {"dag_id": "gold_bars", "run_id": "scheduled__1"}}
    said = asyncio.run(notify.deadline_missed(**alert.callback.kwargs, context=context))
    assert said == "sent"
    assert [(body["text"], body["dag"]) for _, body in webhook] == [
        ("gold_bars: the hour's bars are late", "gold_bars")
    ]


@pytest.mark.usefixtures("nobody")
def test_where_nobody_is_to_be_told_the_log_says_so_and_nothing_fails(caplog):
    with caplog.at_level(logging.WARNING):
        notify.AlertNotifier("gold_bars failed").notify(CONTEXT)
    assert asyncio.run(notify.deadline_missed(text="late")) == "no MARKETFLOW_ALERT_URL is set"


def test_an_address_that_is_none_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("MARKETFLOW_ALERT_URL", "file:///etc/passwd")
    with pytest.raises(ConfigurationError, match="MARKETFLOW_ALERT_URL: must be an address like https"):
        notify.post("x", {})


def test_every_task_has_the_notifier():
    (notifier,) = DEFAULT_ARGS["on_failure_callback"]
    assert notifier.message == "{{ dag.dag_id }}.{{ ti.task_id }} failed"
