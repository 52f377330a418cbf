"""Telling somebody when a task fails or a deadline passes, and when it is over; marketflow.alerts tells it once.

Nothing here raises: a target that is broken, or a setting that is wrong, must not fail a task. It is said in the log,
and ops.alert counts what could not be delivered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from marketflow_airflow.trial import is_trial

if TYPE_CHECKING:
    from marketflow.alerts.desk import Outcome
    from marketflow.alerts.message import Alert
    from marketflow.errors import QualityError

_log = logging.getLogger(__name__)
# Dags of which no run does what an earlier one did not do
EACH_WINDOW = frozenset({"silver"})
# what went wrong in the notifier itself, in this process: the desk could not even be asked
FAILURES: list[str] = []


class KnownFailure(AirflowFailException):
    """Fails its run, and nobody is told: a person has just decided so, or it follows from what was told."""


class JobEnded(AirflowException):
    """A job's process, or its JVM, was ended from outside: by the kernel where memory is short, or by somebody.

    Its task is tried again, and somebody is told all the same.
    """


def _field(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _key(context: Mapping[str, Any]) -> str:
    """One for all runs of a task where the next one takes up what this one left, else one for each window."""
    run = context.get("dag_run")
    task = f"task:{_field(run, 'dag_id')}.{_field(context.get('ti'), 'task_id')}"
    if _field(run, "dag_id") not in EACH_WINDOW and _field(run, "run_type") in (None, "scheduled", "asset_triggered"):
        return task
    from marketflow_airflow.interval import name_of

    return f"{task} {name_of(context)}".rstrip()


def _refused(context: Mapping[str, Any]) -> QualityError | None:
    """The failed check behind a task's end, where it is one."""
    from marketflow.errors import QualityError

    error = context.get("exception")
    cause = getattr(error, "__cause__", None) or error
    return cause if isinstance(cause, QualityError) else None


def _alert(key: str, text: str, context: Mapping[str, Any], weight: int) -> Alert:
    from marketflow.alerts.message import Alert

    run, instance, error = context.get("dag_run"), context.get("ti"), context.get("exception")
    dag_id, run_id = _field(run, "dag_id"), _field(run, "run_id")
    refused = _refused(context)
    return Alert(
        key=key,
        title=text,
        cause=refused.cause if refused else str(error or "")[:500],
        command=refused.command if refused else f"scripts/airflow dags list-runs {dag_id}" if dag_id else "",
        owner=str(_field(context.get("task"), "owner") or ""),
        weight=weight,
        more={
            "dag": dag_id,
            "run": run_id,
            "task": _field(instance, "task_id"),
            "exception": str(error or "")[:500],
        },
    )


def tell(key: str, text: str, context: Mapping[str, Any], *, weight: int = 1) -> str:
    """Tell of what failed; returns what became of it, in words, whatever happens.

    `weight` 0 is of a try, after which a failure is worse, and told as well.
    """
    try:
        from marketflow import settings
        from marketflow.alerts import desk

        refused = _refused(context)
        if refused is not None and refused.told:
            return f"alert {key}: each failed check is an alert of its own"
        return _said(desk.tell(settings.load(), _alert(key, text, context, weight)))
    except Exception as error:  # see above: never out of here
        return _broken(key, text, error)


def tell_of(*, key: str, title: str, cause: str, command: str, layer: str | None = None, weight: int = 0) -> str:
    """Tell of what is no task's failure; as `tell`, it returns what became of it, whatever happens."""
    try:
        from marketflow import settings
        from marketflow.alerts import desk
        from marketflow.alerts.message import Alert

        return _said(desk.tell(settings.load(), Alert(key, title, cause, command, layer=layer, weight=weight)))
    except Exception as error:  # see above
        return _broken(key, title, error)


def recover(key: str) -> str:
    """End the alert of this key, if there is one."""
    try:
        from marketflow import settings
        from marketflow.alerts import desk

        return _said(desk.recover(settings.load(), key))
    except Exception as error:  # see above
        return _broken(key, "is over", error)


def _said(outcome: Outcome) -> str:
    if outcome.what in ("not sent", "recovery not sent"):
        _log.warning("nobody was told: %s", outcome)
    elif outcome.what != "nothing":
        _log.info("%s", outcome)
    return str(outcome)


def _broken(key: str, text: str, error: Exception) -> str:
    said = f"alert {key}: nobody was told ({text}): {type(error).__name__}: {error}"
    FAILURES.append(said)
    _log.error("%s; %s such failures in this process", said, len(FAILURES))
    return said


class AlertNotifier(BaseNotifier):
    """For on_failure_callback."""

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        """`message` is a template: `{{ dag.dag_id }}.{{ ti.task_id }} failed`."""
        super().__init__()
        self.message = message

    def notify(self, context: Any) -> None:
        """Called in the worker."""
        if is_trial():
            _log.info("nobody is told of what fails in `airflow dags test`")
        elif not isinstance(context.get("exception"), KnownFailure):
            tell(_key(context), self.message, context)

    async def async_notify(self, context: Any) -> None:
        """Called in the triggerer."""
        await asyncio.to_thread(self.notify, context)


class RetryNotifier(AlertNotifier):
    """For on_retry_callback: tells of a job that was ended, until its task succeeds. Of other tries nobody is told."""

    def notify(self, context: Any) -> None:
        """Called in the worker."""
        if not is_trial() and isinstance(context.get("exception"), JobEnded):
            tell(_key(context), self.message, context, weight=0)


class RecoveryNotifier(BaseNotifier):
    """For on_success_callback: ends the alert that a failure of the same task began; see `_key` for whose."""

    def notify(self, context: Any) -> None:
        """Called in the worker."""
        if not is_trial():
            recover(_key(context))

    async def async_notify(self, context: Any) -> None:
        """Called in the triggerer."""
        await asyncio.to_thread(self.notify, context)


def run_timed_out(context: Mapping[str, Any]) -> None:
    """For a Dag's on_failure_callback: a run that took too long is ended by Airflow, which calls no task's.

    Told as a failure of the task that was under way or next, and over as that is.
    """
    if context.get("reason") != "timed_out" or is_trial():
        return
    if context.get("ti") is None:
        _log.error("a run of %s took too long and was ended; nobody was told: no task was left", context.get("dag"))
        return
    dag_id, task_id = _field(context.get("dag_run"), "dag_id"), _field(context["ti"], "task_id")
    tell(_key(context), f"{dag_id}: a run took too long and was ended, at task {task_id}", context)


async def deadline_missed(*, text: str, context: Any = None) -> str:
    """For a DeadlineAlert's AsyncCallback, which takes a plain coroutine with a `context` parameter.

    The alert ends with the Dag's next run of another kind that succeeds: see `deadline_met`. A backfill's runs are all
    queued when it is made and wait for their turn: nobody is told of those.
    """
    given = context or {}
    if _field(given.get("dag_run"), "run_type") == "backfill":
        return f"a run of a backfill takes its time: {text}"
    return await asyncio.to_thread(tell, _deadline_key(given, text), text, given)


def deadline_met(context: Mapping[str, Any]) -> None:
    """For a Dag's on_success_callback. A backfill's run that succeeds says nothing of the one that is late."""
    if not is_trial() and _field(context.get("dag_run"), "run_type") != "backfill":
        recover(_deadline_key(context, ""))


def _deadline_key(context: Mapping[str, Any], text: str) -> str:
    return f"deadline:{_field(context.get('dag_run'), 'dag_id') or text.split(':')[0]}"
