"""What Dag stream_reset is made of: an approval that a run may bring with it, and the stream stopped and started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.notify import KnownFailure
from marketflow_airflow.service_round import Request
from marketflow_airflow.services import StreamOperator
from marketflow_airflow.spark import SparkJobOperator
from marketflow_airflow.stream_watch import STREAM
from marketflow_airflow.trial import is_trial

APPROVED_BY = "approved_by"
APPROVE = "approve"
RESET = "reset"
STOPPED = "stopped"
FORM = (APPROVED_BY, "topics")


def approver(context: Mapping[str, Any]) -> str:
    """Who took the responsibility: the name in the form, or the person who pressed Approve."""
    named = (context["params"].get(APPROVED_BY) or "").strip()
    if named:
        return named
    answer = context["ti"].xcom_pull(task_ids=APPROVE) or {}
    user = answer.get("responded_by_user") or {}
    return str(user.get("name") or "somebody in the UI")


class ResetApproval(ApprovalOperator):
    """Asks a person, without holding a slot; not where the run was started with a name in `approved_by`."""

    def __init__(self, **kwargs: Any) -> None:
        """A Reject is a failure: the run was started to reset."""
        super().__init__(fail_on_reject=True, **kwargs)

    def execute(self, context: Any) -> Any:
        """Go on with the given name, or wait for somebody."""
        refuse_unknown(context, FORM)
        named = (context["params"].get(APPROVED_BY) or "").strip()
        if named:
            self.log.info("approved by %s, who started the run", named)
            return {"responded_by_user": {"name": named}}
        if is_trial():
            raise AirflowFailException(
                "nobody can be asked in `airflow dags test`: give your name with "
                f'-c \'{{"{APPROVED_BY}": "…"}}\', or trigger the Dag in the UI'
            )
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """The answer; a Reject ends the run, and is not asked again."""
        try:
            return super().execute_complete(context, event)
        except HITLRejectException:
            raise KnownFailure("rejected: nothing was changed") from None


def switch(context: Mapping[str, Any], action: str) -> None:
    """Start or stop the stream in the approver's name, as the form of Dag market_stream does."""
    run = context["dag_run"]
    reason = f"Dag {run.dag_id}, run {run.run_id}"
    request = Request(service=STREAM, action=action, reason=reason, asked_by=approver(context))
    StreamOperator(task_id=action).round(context, request)


class CheckpointReset(SparkJobOperator):
    """Stops the stream, then does the job: both with the slot of pool `spark`, so that it stands still no longer."""

    def execute(self, context: Mapping[str, Any]) -> Any:
        """What the job says of each query. A second try, or the task cleared later, stops the stream again."""
        # before it is done: whatever comes of it, this run has the stream to start
        context["ti"].xcom_push(STOPPED, True)
        switch(context, "stop")
        return super().execute(context)


class StreamStart(BaseOperator):
    """Starts the stream again whatever became of the reset, and fails where that did not happen."""

    def execute(self, context: Mapping[str, Any]) -> None:
        """One round; nothing where this run never came to stop the stream."""
        ti = context["ti"]
        if not ti.xcom_pull(task_ids=RESET, key=STOPPED):
            raise KnownFailure("the stream was not stopped by this run, so it is not started either")
        switch(context, "start")
        if not ti.xcom_pull(task_ids=RESET):
            raise AirflowFailException(
                "the checkpoint was not reset: the log of task reset says why. The stream is to run again"
            )
