"""Telling somebody: a JSON webhook when a task fails or a deadline passes; the log where no webhook is set."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseNotifier


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _body(text: str, context: Mapping[str, Any]) -> dict[str, Any]:
    run, instance = context.get("dag_run"), context.get("ti")
    return {
        "text": text,
        "dag": _field(run, "dag_id"),
        "run": _field(run, "run_id"),
        "task": _field(instance, "task_id"),
        "exception": str(context.get("exception") or "")[:500],
    }


def post(text: str, context: Mapping[str, Any]) -> bool:
    """POST one alert to MARKETFLOW_ALERT_URL; False where it is not set."""
    from marketflow import settings

    target = settings.load().alert_url
    if not target:
        return False
    request = urllib.request.Request(  # noqa: S310 - settings take an http address and no other
        target, json.dumps(_body(text, context)).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - as above
        answer.read()
    return True


class AlertNotifier(BaseNotifier):
    """For on_failure_callback."""

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        """`message` is a template: `{{ dag.dag_id }}.{{ ti.task_id }} failed`."""
        super().__init__()
        self.message = message

    def notify(self, context: Any) -> None:
        """Called in the worker."""
        if not post(self.message, context):
            self.log.warning("no MARKETFLOW_ALERT_URL is set, so nobody was told: %s", self.message)

    async def async_notify(self, context: Any) -> None:
        """Called in the triggerer."""
        await asyncio.to_thread(self.notify, context)


async def deadline_missed(*, text: str, context: Any = None) -> str:
    """For a DeadlineAlert's AsyncCallback, which takes a plain coroutine with a `context` parameter."""
    sent = await asyncio.to_thread(post, text, context or {})
    return "sent" if sent else "no MARKETFLOW_ALERT_URL is set"
