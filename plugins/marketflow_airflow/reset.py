"""What Dag stream_reset is made of: an approval that a run may bring with it, and the stream stopped and started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowFailException

from marketflow_airflow.form import refuse_unknown
from marketflow_airflow.notify import KnownFailure
from marketflow_airflow.service_round import Request
from marketflow_airflow.services import StreamOperator
from marketflow_airflow.stream_watch import STREAM
from marketflow_airflow.trial import is_trial

APPROVED_BY = "approved_by"
APPROVE = "approve"
STOP = "stop"
RESET = "reset"
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


class StreamSwitch(StreamOperator):
    """Stops or starts the stream in the approver's name, as the form of Dag market_stream does.

    `start` runs whatever became of the reset, and fails where it did not happen, so that the run is not called well.
    """

    def __init__(self, *, action: str, **kwargs: Any) -> None:
        """`action` is stop or start."""
        super().__init__(do_xcom_push=True, **kwargs)
        self.action = action

    def execute(self, context: Mapping[str, Any]) -> str:
        """One round with this wish; returns the action."""
        ti = context["ti"]
        if self.action == "start" and not ti.xcom_pull(task_ids=STOP):
            raise KnownFailure("the stream was not stopped by this run, so it is not started either")
        super().execute(context)
        if self.action == "start" and not ti.xcom_pull(task_ids=RESET):
            raise AirflowFailException(
                "the checkpoint was not reset: the log of task reset says why. The stream is to run again"
            )
        return self.action

    def _request(self, context: Mapping[str, Any]) -> Request:
        return Request(
            service=STREAM,
            action=self.action,
            reason=f"Dag {context['dag_run'].dag_id}, run {context['dag_run'].run_id}",
            asked_by=approver(context),
        )
